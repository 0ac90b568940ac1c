"""The elements of a Markdown text that shows words from outside as they are."""

import re
from collections.abc import Sequence

PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")  # ASCII's, all of which Markdown lets be escaped


def plain(text: str) -> str:
    """The text in one line, with nothing in it that Markdown or HTML would take for its own."""
    return PUNCTUATION.sub(r"\\\g<0>", " ".join(text.split()))


def code(text: str) -> str:
    """What is to be copied: verbatim, unless it has a backtick of its own."""
    return plain(text) if "`" in text or "\n" in text else f"`{text}`"


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
