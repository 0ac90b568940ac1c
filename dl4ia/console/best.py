"""The best trials that MLflow knows, as a table."""

from contextlib import suppress

import pandas as pd

from dl4ia.errors import InputError
from dl4ia.text import table
from dl4ia.tracking.reading import TrackedRun, best_trials, study_names

# Of each task its metric; asking the tasks themselves would import torch, for two seconds.
METRICS = {"segmentation": "val_dice", "classification": "val_accuracy"}
WIDTH = 100  # characters
LAST = ("commit", "run_id")
NO_CHOICES = ("study", "seconds", *LAST)  # columns that differ without being hyperparameters


def best_runs(
    experiment: str,
    top: int = 10,
    study: str | None = None,
    where: str | None = None,
    tracking_uri: str = "sqlite:///mlruns/mlflow.db",
) -> pd.DataFrame:
    """The `top` completed trials of an experiment, best first by their validation metric.

    experiment: "segmentation" (by val_dice) or "classification" (by val_accuracy).
    study: only its trials; by default those of all studies in the experiment.
    where: a condition in MLflow's language, such as "params.architecture = 'unet'".

    A row a trial: rank, study, trial, the metric, where there is one the metric pooled over pixels,
    weights (how many), seconds (of the whole trial), point (the report's or reference model's name,
    or ""), every hyperparameter (missing where the trial has none), commit and run_id.

    Raises InputError where there is no such database, experiment or study, or `where` is not
    understood.
    """
    if experiment not in METRICS:
        raise InputError(f"experiment '{experiment}': expected {' or '.join(METRICS)}")
    metric = METRICS[experiment]
    runs = best_trials(tracking_uri, experiment, metric, top, study, where)
    if study and not runs and study not in (known := study_names(tracking_uri, experiment)):
        names = ", ".join(known) or "none"
        raise InputError(f"--study {study}: no such study in {experiment}; there is {names}")
    rows = [_row(rank, run, metric) for rank, run in enumerate(runs, start=1)]
    frame = pd.DataFrame(rows, columns=None if rows else ["rank", "study", "trial", metric])
    for name in dict.fromkeys(name for run in runs for name in run.parameters):
        frame[name] = _as_values([run.parameters.get(name) for run in runs])
    return frame[[name for name in frame if name not in LAST] + [n for n in LAST if n in frame]]


def best_records(runs: pd.DataFrame) -> list[dict[str, object]]:
    """The rows of `best_runs` for JSON, to the last digit; null where one has no such value."""
    return [
        {str(name): None if pd.isna(value) else value for name, value in row.items()}
        for row in runs.to_dict("records")
    ]


def best_table(runs: pd.DataFrame) -> str:
    """The rows of `best_runs` in 100 columns: of the hyperparameters, those that differ and fit."""
    if runs.empty:
        return "No trial."
    columns = {name: _cells(runs[name]) for name in runs}
    scores = [name for name in columns if name == "weights" or name.startswith("val_")]
    names = ["rank", *["study"] * (runs["study"].nunique() > 1), "trial", *scores, "point"]
    others = [name for name in columns if name not in {*names, *NO_CHOICES}]
    differing = [name for name in others if runs[name].nunique() > 1]
    differing.sort(key=lambda name: name != "architecture")
    left_out = 0
    for name in differing:
        if max(map(len, _lines(columns, [*names, name]))) <= WIDTH:
            names.append(name)
        else:
            left_out += 1
    text = "\n".join(_lines(columns, names))
    more = f"\n{left_out} more hyperparameters differ: --format csv" if left_out else ""
    return text + more


def _row(rank: int, run: TrackedRun, metric: str) -> dict[str, object]:
    row: dict[str, object] = {
        "rank": rank,
        "study": run.tags.get("dl4ia.study", ""),
        "trial": int(run.tags["dl4ia.trial"]),
        metric: run.metrics.get(metric),
    }
    if f"{metric}_pooled" in run.metrics:
        row[f"{metric}_pooled"] = run.metrics[f"{metric}_pooled"]
    row["weights"] = int(run.metrics["weights"])
    row["seconds"] = run.metrics.get("seconds_total")
    row["point"] = run.tags.get("dl4ia.point", "")
    return row | {"commit": run.tags.get("dl4ia.commit", ""), "run_id": run.id}


def _as_values(texts: list[str | None]) -> pd.Series:
    """MLflow's parameters are text: truth values, whole numbers, numbers, or text; None: missing.

    Whole numbers and truth values stay what they are where some are missing.
    """
    values = [None if text is None else _value(text) for text in texts]
    kinds = {type(value) for value in values if value is not None}
    whole = "Int64" if kinds == {int} else "boolean" if kinds == {bool} else None
    return pd.Series(values, dtype=whole)


def _value(text: str) -> bool | int | float | str:
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _cells(column: pd.Series) -> list[str]:
    def text(value: object) -> str:
        if pd.isna(value) or value == "":
            return "–"
        if column.name == "weights":
            return f"{value:,}"
        if str(column.name).startswith("val_"):
            return f"{value:.4f}"
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    return [text(value) for value in column]


def _lines(columns: dict[str, list[str]], names: list[str]) -> list[str]:
    rows = zip(*(columns[name] for name in names), strict=True)
    return table([[_heading(name) for name in names], *rows]).splitlines()


def _heading(name: str) -> str:
    """As in a study's own leaderboard."""
    return "pooled" if name.endswith("_pooled") else name.replace("val_", "val ")
