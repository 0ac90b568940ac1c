"""What an exported program may hold, so that nothing that is loaded runs code.

A pt2 file is a zip archive of JSON and raw weights. MLflow refuses one with pickles in it, but
torch.export.load executes the text of a program's guards, evaluates that of its symbolic sizes, and
calls what its nodes name. Dl4ia's networks need none of it beyond torch's own operators.
"""

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dl4ia.errors import InputError

SYMBOL = re.compile(r"\w+|Symbol\('\w+', positive=True, integer=True\)", re.ASCII)
COMPARISONS = "eq|ne|ge|gt|le|lt"
OPERATOR = re.compile(
    rf"torch\.ops\.aten\.\w+\.\w+|_operator\.(getitem|add|sub|mul|floordiv|{COMPARISONS})", re.ASCII
)


def check_program(file: Path) -> None:
    """Raise InputError where `file` is no archive, or has what would run as code."""
    try:
        with zipfile.ZipFile(file) as archive:
            # torch finds a member whatever the case of its name.
            programs = [
                json.loads(archive.read(member))
                for member in archive.infolist()
                if "models" in member.filename.casefold().split("/")
            ]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}: is not an exported program; register the model again") from error
    for program in programs:
        for foreign in _foreign(program):
            raise InputError(
                f"{file}: would run code ({foreign!r:.80}); expected an exported network of a "
                "study: do not use it"
            )


def _foreign(part: Any) -> Iterator[str]:
    """What in a program, as JSON, is neither a plain symbol nor one of torch's operators."""
    if isinstance(part, list):
        for item in part:
            yield from _foreign(item)
    elif isinstance(part, dict):
        yield from map(str, part.get("guards_code") or ())
        if "expr_str" in part and not SYMBOL.fullmatch(str(part["expr_str"])):
            yield str(part["expr_str"])
        for node in part.get("nodes") or ():
            if not OPERATOR.fullmatch(str(node["target"])):
                yield str(node["target"])
        for item in part.values():
            yield from _foreign(item)
