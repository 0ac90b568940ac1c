"""The flags of the benchmarks' command lines."""

import argparse
from pathlib import Path


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """A benchmark's: its `--help` begins with the file's docstring, line by line as it stands."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_record(parser: argparse.ArgumentParser) -> None:
    """The flag that every benchmark of the table has."""
    parser.add_argument(
        "--record", action="store_true", help="keep the figures, for the table of README.md"
    )


def check_folders(parser: argparse.ArgumentParser, record: bool, *folders: Path | None) -> None:
    """A usage error where what is claimed of MNIST and WARWICK would be of other images."""
    if record and None in folders:
        parser.error("--record: expected --digits and --glands, whose images the claims are of")
