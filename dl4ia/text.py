"""Words and figures as text: aligned tables, plurals, times, names of metrics."""

import re
from collections.abc import Sequence

SAID_OF_A_SCORE = re.compile(
    r"(.*)_(sd|low|high|ensemble|ensemble_averaged|seed_[0-9]+)", re.DOTALL
)


def score_behind(name: str) -> str | None:
    """The score that a name would say something of by its end: "dice" of "dice_low"."""
    found = SAID_OF_A_SCORE.fullmatch(name)
    return found[1] if found else None


def metric_name(name: str) -> str:
    """As MLflow takes it: a class may be called anything."""
    return re.sub(r"[^\w./ :-]", "_", name)


def duration(seconds: float) -> str:
    """For example "12 s", "5 min", "1 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as text in aligned columns, the names first; the last column is left-aligned."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        lines.append("  " + "  ".join([*cells, row[-1]]))
    return "\n".join(lines)


def short(value: object) -> str:
    """A hyperparameter's value, of four digits where it is a number with a fraction."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def plural(count: int, noun: str, nouns: str = "") -> str:
    """For example "1 seed", "3 seeds"; nouns: where an s at the end will not do."""
    return f"{count} {noun if count == 1 else nouns or noun + 's'}"


def printable(text: str) -> str:
    """In one line, and harmless to a terminal, whatever a file is called."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
