"""What the user reads in the terminal: a line a trial, and the study's summary."""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from dl4ia.selection import ranked_trials

LEADERS = 10


def trial_line(trial: FrozenTrial, done: int, trials: int, best: float | None, left: float) -> str:
    """One line for a finished trial. left: seconds until the search ends, as far as one knows."""
    attributes = trial.user_attrs
    value = f"{trial.value:.4f}" if trial.state == TrialState.COMPLETE else "  –   "
    outcome = trial.state.name.lower()
    if trial.state == TrialState.PRUNED:
        outcome = f"pruned at {list(trial.intermediate_values.values())[-1]:.4f}"
    if "failure" in attributes:
        outcome = f"failed: {attributes['failure']}"
    epochs = len(trial.intermediate_values)
    seconds = trial.duration.total_seconds() if trial.duration else 0.0
    record = "–" if best is None else f"{best:.4f}"
    return (
        f"{done:>3}/{trials}  {value}  {describe(trial):<34} {epochs:>3} epochs {seconds:>5.0f} s  "
        f"{outcome}  [best {record}, {duration(left)} left]"
    )


def describe(trial: FrozenTrial) -> str:
    """The named point, or the choices that say most."""
    named = trial.user_attrs.get("point")
    point = trial.params
    short = " ".join(
        str(point[name]) for name in ("architecture", "normalization", "optimizer") if name in point
    )
    return str(named) if named else short


def duration(seconds: float) -> str:
    """For example "12 s", "5 min", "1 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def leaderboard(study: optuna.Study, metric: str) -> str:
    """The best trials, and every report model with its rank."""
    rows = []
    for rank, trial in enumerate(ranked_trials(study), start=1):
        attributes = trial.user_attrs
        if rank > LEADERS and "report_model" not in attributes:
            continue
        history = attributes["history"]
        report = attributes.get("report_model")
        name = f"{report} (report)" if report else describe(trial)
        rows.append(
            {
                "rank": str(rank),
                "trial": str(trial.number),
                f"val {metric}": f"{trial.value:.4f}",
                "pooled": f"{history[f'val_{metric}_pooled'][-1]:.4f}"
                if f"val_{metric}_pooled" in history
                else "–",
                "weights": f"{attributes['weights']:,}",
                "model": name,
            }
        )
    return table(rows)


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows as text in aligned columns; the last column is left-aligned."""
    names = list(rows[0])
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in names}
    lines = []
    for row in [{name: name for name in names}, *rows]:
        cells = [row[name].rjust(widths[name]) for name in names[:-1]]
        lines.append("  " + "  ".join([*cells, row[names[-1]]]))
    return "\n".join(lines)


def summary(
    study: optuna.Study,
    metric: str,
    report_note: str,
    validation: str,
    storage: str,
    tracking_uri: str,
) -> str:
    """The whole summary of a study that has a winner."""
    trials = study.get_trials(deepcopy=False)
    states = {state: sum(trial.state == state for trial in trials) for state in TrialState}
    winner: dict[str, Any] = study.user_attrs["winner"]
    openings = study.user_attrs["test_openings"]
    counts = (
        f"{states[TrialState.COMPLETE]} completed, {states[TrialState.PRUNED]} pruned, "
        f"{states[TrialState.FAIL]} failed or interrupted"
    )
    lines = [
        "",
        f"Study {study.study_name}: {counts}",
        "",
        leaderboard(study, metric),
        "",
        report_note,
        "",
        f"Winner: trial {winner['trial']}, {winner['weights']:,} weights",
        *(f"  {name} = {value}" for name, value in winner["point"].items()),
        "",
        f"Validation ({validation}; the best of many, so on the bright side)",
        *_score_lines(metric, winner["metrics"], "val"),
        f"Test (retrained on all training images; mean and SD over {winner['seeds']} seeds)",
        *_score_lines(metric, winner["metrics"], "test"),
        f"  test set opened {len(openings)} time{'s' if len(openings) != 1 else ''}, "
        f"last {openings[-1]['when']} at commit {openings[-1]['commit'][:10]}",
        f"  pictures: {winner['pictures']}",
        "",
        "Compare the trials:  optuna-dashboard " + storage,
        "See every run:       mlflow ui --backend-store-uri " + tracking_uri,
    ]
    return "\n".join(lines)


def _score_lines(metric: str, scores: Mapping[str, float], prefix: str) -> list[str]:
    labels = {metric: "mean over images", f"{metric}_pooled": "pooled over pixels"}
    lines = []
    for name, label in labels.items():
        if f"{prefix}_{name}" in scores:
            deviation = scores.get(f"{prefix}_{name}_sd")
            spread = "" if deviation is None else f" ± {deviation:.4f}"
            lines.append(f"  {metric} {scores[f'{prefix}_{name}']:.4f}{spread}  ({label})")
    return lines
