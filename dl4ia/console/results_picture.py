"""A study at a glance, as `dl4ia results` draws it from the files it has written."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dl4ia.report.style import ACCENT, GREY, REPORT, value_range
from dl4ia.text import plural, short

ROW = 0.34  # inches of a line in a panel of lines
WIDTH, SEARCH_HEIGHT = 8.0, 2.6  # inches
CLIPPED = 4  # times the middle one's extent: no interval that reaches further hides the others


def draw_results(folder: Path) -> Path:
    """study.png in a study's `folder`, from its CSV files and study.json; returns its path.

    The search; the finalists, each repeat and what the search had promised; the ablation; the test
    score of every seed beside the report's best model. What the folder has not is left out.
    """
    record = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    metric = record["metric"]
    trials = pd.read_csv(folder / "trials.csv")
    finalists, effects = (_table(folder / f"{name}.csv") for name in ("finalists", "ablation"))
    panels: list[tuple[float, Any]] = [(SEARCH_HEIGHT, lambda axes: _search(axes, trials, metric))]
    if not finalists.empty and "mean" in finalists:
        repeated = finalists.dropna(subset="mean")
        panels.append((_height(len(repeated)), lambda axes: _finalists(axes, repeated, metric)))
    if not effects.empty and "effect" in effects:
        known = effects.dropna(subset="effect")
        panels.append((_height(len(known)), lambda axes: _ablation(axes, known, metric)))
    if "scores" in record:
        panels.append((_height(2), lambda axes: _test(axes, record)))
    file = folder / "study.png"
    with rc_context({"text.parse_math": False}):  # names from outside may have dollars
        _draw(panels).savefig(file, dpi=130)
    return file


def _draw(panels: Sequence[tuple[float, Any]]) -> Figure:
    """One below the other; each has its height in inches and what draws on its axes."""
    heights = [height for height, _ in panels]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    every = figure.subplots(len(panels), height_ratios=heights, squeeze=False)[:, 0]
    for (_, draw), axes in zip(panels, every, strict=True):
        draw(axes)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(6))
    return figure


def _table(file: Path) -> pd.DataFrame:
    return pd.read_csv(file) if file.exists() else pd.DataFrame()


def _height(rows: int) -> float:
    return 0.9 + ROW * rows


def _search(axes: Axes, trials: pd.DataFrame, metric: str) -> None:
    """Values over trial numbers; a trial that was pruned has that of its last epoch."""
    done = trials[trials["state"] == "complete"]
    pruned = trials[trials["state"] == "pruned"]
    low, high = value_range(list(done["value"]))
    reports = done["of_the_report"]
    axes.step(done["trial"], done["value"].cummax(), where="post", color=ACCENT, lw=1)
    for chosen, values, colour, marker, label in (
        (done[reports], "value", REPORT, "D", "the report's"),
        (done[~reports], "value", ACCENT, "o", "the search's"),
        (pruned, f"val_{metric}", GREY, "o", "pruned, its last"),
    ):
        shown = chosen[chosen[values] >= low]
        axes.scatter(
            shown["trial"], shown[values], s=22, marker=marker, color=colour, linewidths=0,
            label=label,
        )  # fmt: skip
    below = int((done["value"] < low).sum())
    told = f" ({plural(below, 'completed one')} further down)" if below else ""
    axes.set(ylim=(low, high), xlabel=f"trial{told}", ylabel=f"validation {metric}")
    _entitle(axes, "Search", legend=True)


def _finalists(axes: Axes, finalists: pd.DataFrame, metric: str) -> None:
    counts = _repeat_counts(finalists)
    labels = [
        f"trial {row['trial']}: {row['model']}"
        + (f" ({count} of {max(counts)} repeats)" if count < max(counts) else "")
        for count, (_, row) in zip(counts, finalists.iterrows(), strict=True)
    ]
    places = _forest(axes, labels, finalists, "mean")
    axes.scatter(
        finalists["search"], places, s=30, marker="D", facecolors="none", edgecolors=REPORT,
        label="in the search",
    )  # fmt: skip
    axes.set_xlabel(f"validation {metric}")
    _entitle(axes, "Finalists, trained again", legend=True)


def _ablation(axes: Axes, effects: pd.DataFrame, metric: str) -> None:
    baseline = effects.columns[2]
    labels = [
        f"{row['choice']}: {_value(row['winner'])} → {_value(row[baseline])}"
        for _, row in effects.iterrows()
    ]
    _forest(axes, labels, effects, "effect")
    axes.axvline(0, color=GREY, ls=":", lw=1)
    extents = effects.filter(regex="^(low|high|effect)$").abs().max(axis=1).sort_values()
    limit = min(extents.iloc[-1], CLIPPED * extents.iloc[len(extents) // 2]) or extents.iloc[-1]
    limit = limit or 1.0  # no choice that did anything
    edge = 1.05 * limit
    for end, marker in (("low", "<"), ("high", ">")):  # an interval that goes on outside
        outside = [p for p, value in enumerate(effects.get(end, ())) if abs(value) > edge]
        for place in outside:
            at = edge if end == "high" else -edge
            axes.plot([at], [place], marker, color=ACCENT, ms=8, clip_on=False)
    for place, effect in enumerate(effects["effect"]):
        if abs(effect) > limit:
            side = "right" if effect > 0 else "left"
            axes.annotate(
                f"{effect:+.4f}", (edge if effect > 0 else -edge, place),
                xytext=(0, 4), textcoords="offset points", ha=side, fontsize=8, color=ACCENT,
            )  # fmt: skip
    axes.set(xlim=(-edge, edge), xlabel=f"effect on validation {metric}")
    _entitle(axes, f"What each choice buys, turned back alone to {baseline}'s", legend=False)


def _forest(axes: Axes, labels: Sequence[str], rows: pd.DataFrame, mean: str) -> list[int]:
    """Each row's repeats, mean and 95 % interval, the first on top; returns where the rows are."""
    places = list(range(len(rows)))
    repeats = [name for name in rows if name.startswith("repeat_")]
    for place, (_, row) in zip(places, rows.iterrows(), strict=True):
        values = row[repeats].dropna()
        _dots(axes, values, place)
        if pd.notna(row.get("low")):
            axes.hlines(place, row["low"], row["high"], color=ACCENT, lw=2)
    counts = _repeat_counts(rows)
    faces = [ACCENT if count == max(counts) else "white" for count in counts]
    axes.scatter(
        rows[mean], places, s=36, facecolors=faces, edgecolors=ACCENT, zorder=3,
        label="mean, 95 % interval",
    )  # fmt: skip
    axes.set_yticks(places, labels)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    return places


def _repeat_counts(rows: pd.DataFrame) -> list[int]:
    """How many repeats each row has."""
    counts: list[int] = rows.filter(regex="^repeat_").notna().sum(axis=1).tolist()
    return counts


def _test(axes: Axes, record: dict[str, Any]) -> None:
    """Of a winner and the report's best model: each seed, and their mean with its interval."""
    scores, metric = record["scores"], record["metric"]
    rows = [(f"test_{metric}", record["winner_model"], ACCENT)]
    if record["report_model"] is not None:
        rows.append((f"report_{metric}", f"{record['report_model']} (report)", REPORT))
    for place, (name, _, colour) in enumerate(rows):
        seeds = [scores.get(f"{name}_seed_{seed}") for seed in range(record["seeds"])]
        known = [value for value in seeds if value is not None]
        _dots(axes, known, place)
        if f"{name}_low" in scores:
            axes.hlines(place, scores[f"{name}_low"], scores[f"{name}_high"], color=colour, lw=2)
        axes.scatter(scores[name], place, s=36, color=colour, zorder=3)
    axes.set_yticks(range(len(rows)), [label for _, label, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(f"test {metric}")
    count = plural(record["seeds"], "seed")
    whose = ", the winner's 95 % interval" if f"test_{metric}_low" in scores else ""
    _entitle(axes, f"Test of {count}: each, mean{whose}", legend=False)


def _dots(axes: Axes, values: Sequence[float], place: int) -> None:
    """Of what a mean is of, a little above it."""
    places = [place - 0.2] * len(values)
    axes.scatter(values, places, s=14, color=GREY, alpha=0.7, linewidths=0)


def _entitle(axes: Axes, title: str, legend: bool) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    if legend:
        axes.legend(
            frameon=False, fontsize=8, ncols=3, loc="lower right", bbox_to_anchor=(1, 0.98),
            columnspacing=1, handletextpad=0.3,
        )  # fmt: skip


def _value(text: object) -> str:
    """A hyperparameter's value out of a column of the most different ones."""
    try:
        return short(float(str(text)))
    except ValueError:
        return str(text)
