"""The report page's interactive plots, as HTML fragments. The only file that imports plotly.

Colours follow the page, light or dark: backgrounds are transparent, text takes the page's colour.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import optuna
import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState
from plotly.offline import get_plotlyjs

from dl4ia.statistics import Estimate
from dl4ia.study import first_value

ACCENT, GREY, REPORT = "#1f88b5", "#8a8f98", "#d9722b"
HEIGHT = 380  # pixels
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
    for (const [index, trace] of (plot.data || []).entries())
      if (trace.type === "parcoords")
        Plotly.restyle(plot, {"labelfont.color": style.color, "tickfont.color": style.color,
          "rangefont.color": style.color}, [index]);
  }
}
window.addEventListener("load", paint);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
"""


@dataclass(frozen=True)
class Interval:
    """A row of a forest plot."""

    label: str
    estimate: Estimate


def scripts() -> str:
    """Plotly itself, once a page, and what keeps plots in the page's colours."""
    return f"<script>{get_plotlyjs()}</script>\n<script>{FOLLOW_THE_PAGE}</script>"


def history(trials: Sequence[FrozenTrial], metric: str, names: Sequence[str]) -> str:
    """Values over trial numbers, the report's models marked; names: what each trial is."""
    figure = go.Figure()
    kinds = {"search": ACCENT, "report's models": REPORT, "pruned (last value seen)": GREY}
    points: dict[str, list[tuple[int, float, str]]] = {kind: [] for kind in kinds}
    best: list[tuple[int, float]] = []
    for trial, name in zip(trials, names, strict=True):
        if trial.state == TrialState.COMPLETE:
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
    return _fragment(figure)


def bars(values: dict[str, float], title: str) -> str:
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
    figure.update_layout(xaxis_title=title, xaxis_tickformat=".0%")
    return _fragment(figure, _height(len(names)))


def forest(rows: Sequence[Interval], title: str, zero: bool = False) -> str:
    """Means with their 95 % intervals, the first on top; `zero` draws the line of no effect."""
    shown = [row for row in reversed(rows) if row.estimate.count > 1]
    figure = go.Figure(
        go.Scatter(
            x=[row.estimate.mean for row in shown],
            y=[row.label for row in shown],
            error_x={
                "type": "data",
                "array": [row.estimate.high - row.estimate.mean for row in shown],
                "color": ACCENT,
                "thickness": 2,
            },
            mode="markers",
            marker={"color": ACCENT, "size": 9},
            customdata=[(row.estimate.low, row.estimate.high) for row in shown],
            hovertemplate="%{y}<br>%{x:.4f} [%{customdata[0]:.4f}, %{customdata[1]:.4f}]"
            "<extra></extra>",
        )
    )
    if zero:
        figure.add_vline(0, line={"color": GREY, "dash": "dot"})
    figure.update_layout(xaxis_title=title)
    return _fragment(figure, _height(len(shown)))


def budget(best: Sequence[float], metric: str) -> str:
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
    return _fragment(figure)


def slices(study: optuna.Study, parameters: Sequence[str], metric: str) -> str:
    """Optuna's own: the value over each of these hyperparameters, each on its own axis."""
    figure = optuna.visualization.plot_slice(
        study, list(parameters), target=first_value, target_name=metric
    )
    figure.update_layout(width=max(700, 230 * len(parameters)))
    return _fragment(figure)


def parallel(study: optuna.Study, parameters: Sequence[str], metric: str) -> str:
    """Optuna's own: each trial a line through its hyperparameters."""
    figure = optuna.visualization.plot_parallel_coordinate(
        study, list(parameters), target=first_value, target_name=metric
    )
    figure.update_layout(width=max(900, 150 * len(parameters)), margin={"t": 70, "b": 60})
    return _fragment(figure, 460)


def _height(rows: int) -> int:
    return 110 + 32 * max(1, rows)


def _fragment(figure: go.Figure, height: int = HEIGHT) -> str:
    figure.update_layout(
        title=None,
        template="none",
        height=height,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "y": 1.12, "x": 0},
    )
    if figure.layout.margin.t is None:
        figure.update_layout(margin={"l": 10, "r": 20, "t": 40, "b": 50})
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    made: str = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        config={"displaylogo": False, "responsive": True, "displayModeBar": False},
    )
    return f'<div class="plot wide">{made}</div>'
