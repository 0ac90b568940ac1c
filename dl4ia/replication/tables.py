"""The report's tables with our figures beside its own, as text and as Markdown."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dl4ia.replication.trainings import Outcome, Training
from dl4ia.text import table as text_table

REMARKED = "docs/replication.md"  # whose figures the remarks are of


@dataclass(frozen=True)
class Row:
    """One line of a table: a training, and what the report says of it."""

    label: str
    training: Training
    report: Mapping[str, float]  # metric -> the report's figure; shares, not per cent


@dataclass(frozen=True)
class Table:
    """A table of the report.

    remark: one or two sentences on where ours differ, and why; of the trainings in REMARKED.
    """

    name: str
    title: str
    rows: Sequence[Row]
    metrics: Mapping[str, str]  # metric of an outcome -> the column's name
    remark: str = ""

    def shortened(self, epochs: int) -> "Table":
        """The same trainings over so few epochs: to try them out."""
        rows = [replace(row, training=replace(row.training, epochs=epochs)) for row in self.rows]
        return replace(self, rows=rows, remark="")


Outcomes = Mapping[str, Sequence[Outcome]]  # name of a training -> one a seed


def spread(values: Sequence[float], metric: str) -> str:
    """Mean ± SD (n - 1) over seeds, in the metric's unit; of one seed the value alone."""
    scale, digits, unit = _unit(metric)
    text = f"{scale * statistics.fmean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {scale * statistics.stdev(values):.{digits}f}"
    return text + unit


def cells(table: Table, outcomes: Outcomes) -> list[list[str]]:
    """The table's rows, the column names first; a row that is not trained yet has dashes."""
    header = ["model"]
    for column in table.metrics.values():
        header += [f"{column}, report", f"{column}, ours"]
    header += ["weights", "epochs", "seconds, report", "seconds, ours", "device"]
    lines = [header]
    for row in table.rows:
        found = outcomes.get(row.training.name, ())
        line = [row.label]
        for metric in table.metrics:
            line.append(spread([row.report[metric]], metric) if metric in row.report else "–")
            values = [outcome.metrics[metric] for outcome in found]
            line.append(spread(values, metric) if values else "–")
        seconds = row.report.get("seconds")
        line.append(f"{found[0].weights:,}" if found else "–")
        line.append(str(found[0].recipe["epochs"] if found else row.training.epochs))
        line.append("–" if seconds is None else f"{seconds:g}")
        line.append(spread([each.seconds for each in found], "seconds") if found else "–")
        line.append(", ".join(sorted({each.environment["device"] for each in found})) or "–")
        lines.append(line)
    return _without_empty_columns(lines)


def as_text(table: Table, outcomes: Outcomes) -> str:
    """For the terminal."""
    rows = cells(table, outcomes)
    widest = max(len(row[0]) for row in rows)
    turned = [(row[0].ljust(widest), *row[1:-1], row[-1]) for row in rows]
    remark = table.remark and f"In {REMARKED}: {table.remark}"
    return "\n".join(filter(None, [table.title, text_table(turned), remark]))


def as_markdown(table: Table, outcomes: Outcomes) -> str:
    """For README and page."""
    header, *rows = [[cell.replace("|", "\\|") for cell in row] for row in cells(table, outcomes)]
    lines = [f"**{table.title}**", "", "| " + " | ".join(header) + " |"]
    lines.append("|---" + "|---:" * (len(header) - 1) + "|")
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    if table.remark:
        lines += ["", table.remark]
    return "\n".join(lines) + "\n"


def as_summary(tables: Sequence[Table], outcomes: Outcomes) -> str:
    """All tables' rows in one Markdown table, of their first metric alone: for the README."""
    lines = ["| table | model | report | ours |", "|---|---|---:|---:|"]
    for table in tables:
        metric, name = next(iter(table.metrics.items()))
        for number, row in enumerate(table.rows):
            title = "" if number else f"{table.title}: {name}"
            report = spread([row.report[metric]], metric) if metric in row.report else "–"
            values = [each.metrics[metric] for each in outcomes.get(row.training.name, ())]
            ours = spread(values, metric) if values else "–"
            lines.append(f"| {title} | {row.label} | {report} | {ours} |")
    return "\n".join(lines) + "\n"


def _unit(metric: str) -> tuple[float, int, str]:
    """Factor, digits after the point, and unit: per cent, pixels, seconds, or a share."""
    if "accuracy" in metric:
        return 100, 2, " %"
    if "hausdorff" in metric:
        return 1, 1, " px"
    return (1, 0, "") if metric == "seconds" else (1, 3, "")


def _without_empty_columns(lines: list[list[str]]) -> list[list[str]]:
    """Leave out what the report does not say of any row."""
    kept = [
        number
        for number, name in enumerate(lines[0])
        if not name.endswith("report") or any(line[number] != "–" for line in lines[1:])
    ]
    return [[line[number] for number in kept] for line in lines]
