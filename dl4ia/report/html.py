"""The elements of a self-contained HTML page: it opens anywhere, without a network."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

STYLE = """
:root { color-scheme: light dark; --accent: #0b6e99; --line: #8884; --soft: #8881; }
@media (prefers-color-scheme: dark) { :root { --accent: #5fc3ee; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 1rem 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .4rem; }
p { max-width: 46rem; margin: .5rem 0; }
a { color: var(--accent); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
th { font-weight: 600; vertical-align: bottom; }
td { white-space: nowrap; }
.first th:first-child, .first td:first-child,
.last th:last-child, .last td:last-child { text-align: left; }
.first td:first-child { min-width: 12rem; white-space: normal; }
.last td:last-child { min-width: 14rem; white-space: normal; }
.provenance th, .provenance td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .8rem;
  margin: 1rem 0; }
.tile { background: var(--soft); border-radius: 8px; padding: .8rem 1rem; }
.tile b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.tile span { font-size: .85rem; opacity: .85; }
.plot { width: 100%; }
img { max-width: 100%; height: auto; background: white; border-radius: 4px; }
pre { overflow-x: auto; background: var(--soft); border-radius: 6px; padding: .7rem 1rem;
  font-size: .88rem; }
footer { margin-top: 3rem; font-size: .85rem; opacity: .8; }
"""


def write_page(file: Path, title: str, parts: Iterable[str]) -> None:
    """Write a whole page, at once."""
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".part")
    unfinished.write_text(page, encoding="utf-8")
    unfinished.replace(file)


def heading(text: str, level: int = 2) -> str:
    """A section's, or, on level 1, the page's."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    """Plain text."""
    return f"<p>{escape(text)}</p>"


def code(text: str) -> str:
    """What is to be typed."""
    return f"<pre>{escape(text)}</pre>"


def tiles(cells: Iterable[tuple[str, str]]) -> str:
    """Few figures, large: (figure, what it is)."""
    made = "".join(
        f'<div class="tile"><b>{escape(figure)}</b><span>{escape(label)}</span></div>'
        for figure, label in cells
    )
    return f'<div class="tiles">{made}</div>'


def table(lines: Sequence[Sequence[str]], text_column: str = "first") -> str:
    """Rows, the column names first; the "first" or "last" column is text, the others figures."""
    header, *rows = lines
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows
    )
    return (
        f'<div class="wide"><table class="{text_column}"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def picture(title: str, file: Path) -> str:
    """A PNG file, within the page."""
    data = base64.b64encode(file.read_bytes()).decode()
    return f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">'
