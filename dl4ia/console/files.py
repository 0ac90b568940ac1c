"""What commands share that are given image files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

image_files = click.argument(
    "images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path(path_type=Path)
)


def new_folder(help_text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option -o of a command that fills a folder."""
    place = click.Path(path_type=Path)
    return click.option("-o", "--out", required=True, metavar="DIR", type=place, help=help_text)


def tell(failures: list[str]) -> int:
    """Name what could not be read while the others went on; the exit status."""
    for failure in failures:
        click.echo(f"error: {failure}", err=True)
    return 1 if failures else 0
