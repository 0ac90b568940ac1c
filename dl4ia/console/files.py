"""What commands share that are given image files."""

from pathlib import Path

import click

image_files = click.argument(
    "images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path(path_type=Path)
)


def tell(failures: list[str]) -> int:
    """Name what could not be read while the others went on; the exit status."""
    for failure in failures:
        click.echo(f"error: {failure}", err=True)
    return 1 if failures else 0
