"""The replication as one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from dl4ia.replication.tables import Outcomes, Table, cells
from dl4ia.report import html


def write_page(
    file: Path,
    tables: Sequence[Table],
    outcomes: Outcomes,
    pictures: Mapping[str, Path],
    provenance: Sequence[str],
) -> None:
    """Write tables, pictures (title -> PNG file) and lines on where they come from to `file`."""
    parts = ["<h1>The report's tables, trained again</h1>", *map(html.paragraph, provenance)]
    for table in tables:
        parts += [html.heading(table.title), html.table(cells(table, outcomes))]
        if table.remark:
            parts.append(html.paragraph(table.remark))
    for title, picture in pictures.items():
        parts += [html.heading(title), html.picture(title, picture)]
    html.write_page(file, "Replication", parts)
