"""The replication as one self-contained HTML page: it opens anywhere, without a network."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from dl4ia.replication.tables import Outcomes, Table, cells

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #8884; }
th { font-weight: 600; vertical-align: bottom; }
td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; min-width: 12rem; white-space: normal; }
p.remark { max-width: 46rem; }
img { max-width: 100%; height: auto; background: white; border-radius: 4px; }
footer { margin-top: 3rem; font-size: .85rem; opacity: .8; }
"""


def write_page(
    file: Path,
    tables: Sequence[Table],
    outcomes: Outcomes,
    pictures: Mapping[str, Path],
    provenance: Sequence[str],
) -> None:
    """Write tables, pictures (title -> PNG file) and lines on where they come from to `file`."""
    parts = ["<h1>The report's tables, trained again</h1>", *map(_paragraph, provenance)]
    for table in tables:
        parts.append(f"<h2>{escape(table.title)}</h2>")
        parts.append(_table(cells(table, outcomes)))
        if table.remark:
            parts.append(f'<p class="remark">{escape(table.remark)}</p>')
    for title, picture in pictures.items():
        parts.append(f"<h2>{escape(title)}</h2>")
        data = base64.b64encode(picture.read_bytes()).decode()
        parts.append(f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">')
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Replication</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".part")
    unfinished.write_text(page, encoding="utf-8")
    unfinished.replace(file)


def _paragraph(line: str) -> str:
    return f"<p>{escape(line)}</p>"


def _table(lines: Sequence[Sequence[str]]) -> str:
    header, *rows = lines
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows
    )
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )
