"""The interactive plots, for the report page and the dashboard. The only file that imports plotly.

`fragment` turns a figure into a part of the page. Its colours follow the page, light or dark:
backgrounds are transparent, text takes the page's colour.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState
from plotly.colors import sample_colorscale
from plotly.offline import get_plotlyjs

from dl4ia.report.findings import between, describe
from dl4ia.report.style import ACCENT, GREY, REPORT, value_range
from dl4ia.search.trials import first_value
from dl4ia.selection.ablation import effects_of, estimate_of
from dl4ia.selection.finalists import Selection
from dl4ia.statistics import Estimate
from dl4ia.text import short

COMPLETE = TrialState.COMPLETE
SCALE = ("#77739f", "#1f9e89", "#e0a21a")  # low to high, to be seen on black and on white
LEGEND = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"}  # above the plot
HEIGHT, DASHBOARD_HEIGHT = 380, 450  # pixels; the latter is the dashboard's own
FOLLOW_THE_PAGE = """
function paint() {
  const style = getComputedStyle(document.body), grid = "rgba(128,128,128,0.25)";
  for (const plot of document.querySelectorAll(".plotly-graph-div")) {
    const change = {"font.color": style.color};
    for (const name of Object.keys(plot.layout || {}))
      if (/^[xy]axis/.test(name)) {
        change[name + ".gridcolor"] = grid; change[name + ".zerolinecolor"] = grid;
      }
    Plotly.relayout(plot, change);
  }
}
window.addEventListener("load", paint);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
"""


@dataclass(frozen=True)
class Interval:
    """A row of a forest plot.

    searched: the value that the search had promised; None where there is none.
    whole: whether it is over all repeats; else it is over others than the whole ones, and says so.
    """

    label: str
    estimate: Estimate
    searched: float | None = None
    whole: bool = True

    @property
    def reach(self) -> tuple[float, float]:
        """How far the interval goes below and above the mean; NaN where there is none."""
        found = self.estimate
        if not found.has_interval:
            return nan, nan
        return found.mean - found.low, found.high - found.mean


def _label(name: str, count: int, repeats: int) -> str:
    return name if count == repeats else f"{name} ({count} of {repeats} repeats)"


def scripts() -> str:
    """Plotly itself, once a page, and what keeps plots in the page's colours."""
    return f"<script>{get_plotlyjs()}</script>\n<script>{FOLLOW_THE_PAGE}</script>"


def history(trials: Sequence[FrozenTrial], metric: str, names: Sequence[str]) -> go.Figure:
    """Values over trial numbers, the report's models marked; names: what each trial is."""
    figure = go.Figure()
    kinds = {"search": ACCENT, "report's models": REPORT, "pruned (last value seen)": GREY}
    points: dict[str, list[tuple[int, float, str]]] = {kind: [] for kind in kinds}
    best: list[tuple[int, float]] = []
    for trial, name in zip(trials, names, strict=True):
        if trial.state == COMPLETE:
            value = first_value(trial)
            kind = "report's models" if "report_model" in trial.user_attrs else "search"
            points[kind].append((trial.number, value, name))
            best.append((trial.number, max(value, best[-1][1] if best else value)))
        elif trial.state == TrialState.PRUNED and trial.intermediate_values:
            last = trial.intermediate_values[max(trial.intermediate_values)]
            points["pruned (last value seen)"].append((trial.number, last, name))
    figure.add_scatter(
        x=[number for number, _ in best],
        y=[value for _, value in best],
        mode="lines",
        line={"shape": "hv", "color": ACCENT, "width": 1.5},
        name="best so far",
        hoverinfo="skip",
    )
    for kind, found in points.items():
        figure.add_scatter(
            x=[number for number, _, _ in found],
            y=[value for _, value, _ in found],
            text=[text for _, _, text in found],
            mode="markers",
            marker={
                "color": kinds[kind],
                "size": 9 if kind == "report's models" else 7,
                "symbol": "diamond" if kind == "report's models" else "circle",
                "opacity": 0.5 if kind.startswith("pruned") else 1,
            },
            name=kind,
            hovertemplate="trial %{x}: %{y:.4f}<br>%{text}<extra></extra>",
        )
    figure.update_layout(xaxis_title="trial", yaxis_title=f"validation {metric}")
    figure.update_yaxes(range=value_range(completed_values(trials)))
    return figure


def completed_values(trials: Sequence[FrozenTrial]) -> list[float]:
    """What `value_range` is of: the values of the trials that completed."""
    return [first_value(trial) for trial in trials if trial.state == COMPLETE]


def bars(values: dict[str, float], title: str) -> go.Figure:
    """Horizontal bars, the largest on top."""
    names = list(reversed(values))
    figure = go.Figure(
        go.Bar(
            x=[values[name] for name in names],
            y=names,
            orientation="h",
            marker_color=ACCENT,
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        )
    )
    figure.update_layout(xaxis_title=title, xaxis_tickformat=".0%", height=_height(len(names)))
    return figure


def finalists(study: optuna.Study, selection: Selection, metric: str) -> go.Figure | None:
    """Each finalist's mean over the repeats, and what the search had promised: its optimism.

    None where no finalist was trained twice.
    """
    trials = study.get_trials(deepcopy=False)
    rows = [
        Interval(
            _label(
                f"trial {each.trial}: {describe(trials[each.trial])}",
                len(each.values),
                selection.repeats,
            ),
            selection.estimate(each),
            each.searched,
            len(each.values) == selection.repeats,
        )
        for each in selection.finalists
        if len(each.values) > 1
    ]
    return forest(rows, f"validation {metric}") if rows else None


def ablation(record: Mapping[str, Any], metric: str) -> go.Figure | None:
    """What each choice buys; record: a study's attribute "ablation".

    None where no choice was turned back twice.
    """
    rows = [
        Interval(
            _label(f"{each.name}: {short(each.chosen)}", len(each.differences), record["repeats"]),
            estimate_of(each, record),
            whole=len(each.differences) == record["repeats"],
        )
        for each in effects_of(record)
        if len(each.differences) > 1 and not each.failure
    ]
    return forest(rows, f"effect on validation {metric}", zero=True) if rows else None


def forest(rows: Sequence[Interval], title: str, zero: bool = False) -> go.Figure:
    """Means with their 95 % intervals, the first on top; `zero` draws the line of no effect.

    Those over fewer repeats than were asked for have hollow markers.
    """
    shown = list(reversed(rows))
    figure = go.Figure(
        go.Scatter(
            x=[row.estimate.mean for row in shown],
            y=[row.label for row in shown],
            error_x={
                "type": "data",
                "array": [row.reach[1] for row in shown],
                "arrayminus": [row.reach[0] for row in shown],
                "color": ACCENT,
                "thickness": 2,
            },
            mode="markers",
            marker={
                "color": ACCENT,
                "size": 9,
                "symbol": ["circle" if row.whole else "circle-open" for row in shown],
            },
            name="mean, 95 % interval",
            customdata=[between(row.estimate, word=", ") for row in shown],
            hovertemplate="%{y}<br>%{x:.4f} [%{customdata}]<extra></extra>",
        )
    )
    promised = [row for row in shown if row.searched is not None]
    if promised:
        figure.add_scatter(
            x=[row.searched for row in promised],
            y=[row.label for row in promised],
            mode="markers",
            marker={"color": REPORT, "size": 9, "symbol": "diamond-open"},
            name="in the search",
            hovertemplate="%{y}<br>%{x:.4f} in the search<extra></extra>",
        )
    figure.update_xaxes(zeroline=False)
    if zero:
        figure.add_vline(0, line={"color": GREY, "dash": "dot"})
    figure.update_layout(xaxis_title=title, height=_height(len(shown)), showlegend=bool(promised))
    return figure


def budget(best: Sequence[float], metric: str) -> go.Figure:
    """The expected best of n random trials, over n."""
    figure = go.Figure(
        go.Scatter(
            x=list(range(1, len(best) + 1)),
            y=list(best),
            mode="lines+markers",
            line={"color": ACCENT},
            hovertemplate="%{x} trials: %{y:.4f}<extra></extra>",
        )
    )
    figure.update_layout(
        xaxis_title="random trials", yaxis_title=f"expected best {metric}", xaxis_dtick=1
    )
    return figure


def slices(study: optuna.Study, parameters: Sequence[str], metric: str) -> go.Figure:
    """Optuna's own: the value over each of these hyperparameters, each on its own axis."""
    figure = optuna.visualization.plot_slice(
        study, list(parameters), target=first_value, target_name=metric
    )
    figure.update_traces(marker={"colorscale": SCALE, "line_width": 0})
    values = completed_values(study.get_trials(deepcopy=False))
    figure.update_yaxes(range=value_range(values))
    figure.update_layout(width=min(1100, max(700, 230 * len(parameters))))
    return figure


def parallel(study: optuna.Study, parameters: Sequence[str], metric: str) -> go.Figure:
    """Optuna's own, but for its colours, white for the best: each trial a line.

    Of the trials within `value_range`.
    """
    figure = optuna.visualization.plot_parallel_coordinate(
        _good(study), list(parameters), target=first_value, target_name=metric
    )
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    # The first axis is the value, from 0 to 1.
    colours = sample_colorscale(SCALE, [trace.y[0] for trace in lines])
    for trace, colour in zip(lines, colours, strict=True):
        trace.update(line_color=colour, opacity=0.7)
    bar = {"colorscale": SCALE, "reversescale": False}
    figure.update_traces(marker=bar, selector={"mode": "markers"})
    figure.update_annotations(font_color=None)
    figure.update_layout(
        width=max(900, 150 * len(parameters)), height=460, margin={"t": 70, "b": 60}
    )
    return figure


def _good(study: optuna.Study) -> optuna.Study:
    """A copy, in memory, of the completed trials within `value_range`; their numbers are lost."""
    completed = study.get_trials(deepcopy=False, states=(COMPLETE,))
    low, _ = value_range(completed_values(completed))
    copy = optuna.create_study(directions=study.directions)
    copy.add_trials([trial for trial in completed if first_value(trial) >= low])
    return copy


def _height(rows: int) -> int:
    return 110 + 32 * max(1, rows)


def fragment(figure: go.Figure | None) -> str:
    """The figure as a part of the report page; "" of None."""
    if figure is None:
        return ""
    figure.update_layout(
        title=None,
        template="none",
        height=figure.layout.height or HEIGHT,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        legend=LEGEND,
    )
    _leave_room(figure)
    made: str = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        config={"displaylogo": False, "responsive": True, "displayModeBar": False},
    )
    return f'<div class="plot wide">{made}</div>'


def for_dashboard(figure: go.Figure, title: str) -> go.Figure:
    """The figure as the Optuna dashboard takes it: with a title, which the page has around it."""
    figure.update_layout(
        # Below the buttons that the dashboard has in the plot's upper right corner.
        title={"text": title, "font": {"size": 16}, "x": 0, "y": 0.88},
        template="none",
        height=DASHBOARD_HEIGHT,
        paper_bgcolor="white",  # the dashboard has a dark mode, but asks no plot to follow it
        legend=LEGEND,
        margin={"l": 10, "r": 20, "t": 110, "b": 50},
    )
    _leave_room(figure)
    return figure


def _leave_room(figure: go.Figure) -> None:
    """Margins for what is written around the axes."""
    if figure.layout.margin.t is None:
        figure.update_layout(margin={"l": 10, "r": 20, "t": 40, "b": 50})
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
