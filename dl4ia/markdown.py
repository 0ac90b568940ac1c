"""The elements of a Markdown text that shows words from outside as they are."""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from dl4ia.errors import InputError

# What Markdown or HTML may take for its own: anywhere, as an address or emoji (GitHub's), or at the
# start of a line. MLflow's pages know fewer escapes than CommonMark, which the dashboard's follow:
# the rest is written as an entity.
ESCAPED = r"\`*_{}[]>#+.)~=|-"
SPECIAL = re.compile(
    r"[\\`*{}\[\]|~<>&$@]|(?<![^\W_])_|_(?![^\W_])|:(?=//|[\w+-]+:)|www\."
    r"|^(?:[#=]|[+-](?=[\s-]|$)|\d{1,9}[.)](?=\s|$))",
    re.IGNORECASE,
)


def plain(text: str) -> str:
    """The text in one line, with nothing in it that Markdown or HTML would take for its own."""
    return SPECIAL.sub(_escaped, " ".join(text.split()))


def _escaped(found: re.Match[str]) -> str:
    before, mark = found[0][:-1], found[0][-1]
    return before + (f"\\{mark}" if mark in ESCAPED else f"&#x{ord(mark):x};")


def code(text: str) -> str:
    """What is to be copied: verbatim, unless it has a backtick of its own."""
    return plain(text) if "`" in text or "\n" in text else f"`{text}`"


def around_marks(file: Path, name: str) -> tuple[str, str]:
    """A text up to its mark `<!-- name: begin -->`, and from `<!-- name: end -->` on.

    Raises InputError where the marks, or the file, are missing.
    """
    first, last = (f"<!-- {name}: {end} -->" for end in ("begin", "end"))
    text = ""
    if file.is_file():
        with file.open(encoding="utf-8", errors="surrogateescape", newline="") as opened:
            text = opened.read()
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise InputError(
            f"--readme {file}: expected a text with the lines {first} and {last}; add them where "
            "the table is to be"
        )
    return before + begin, end + after


def write_between_marks(file: Path, name: str, text: str) -> None:
    """Replace what stands between the marks of `file`; raises InputError as `around_marks`."""
    before, after = around_marks(file, name)
    end = "\r\n" if "\r\n" in before else "\n"
    whole = end.join([before, *text.split("\n"), after])
    place = file.resolve()  # of a link, what it leads to
    unfinished = place.with_name(f".{place.name}.{os.getpid()}")
    with unfinished.open("w", encoding="utf-8", errors="surrogateescape", newline="") as opened:
        opened.write(whole)
    shutil.copymode(place, unfinished)
    unfinished.replace(place)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the column names first; cells are shown as they are, figures on the right."""
    header, *body = [[_cell(cell) for cell in row] for row in rows]
    sides = [
        "--:" if all(_is_figure(row[column]) for row in rows[1:]) else ":--"
        for column in range(len(header))
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, sides, *body])


def _cell(text: str) -> str:
    # A wide space, since the dashboard leaves none between columns.
    return (text if _is_figure(text) else plain(text)) + "\N{EN SPACE}" * bool(text)


def _is_figure(text: str) -> bool:
    return not re.search(r"[^0-9.,%+–-]", text)
