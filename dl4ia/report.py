"""What the user reads in the terminal: a line a trial, and the study's summary."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from dl4ia.search_space import SpaceModule
from dl4ia.selection import ranked_trials
from dl4ia.study import finished_trials, is_interrupted

LEADERS = 10
WIDTH = 100  # characters of a line of prose


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


def leaderboard(study: optuna.Study, metric: str, report_models: Iterable[str]) -> str:
    """The best trials, and every report model with its rank, or why it has none."""
    pooled = f"val_{metric}_pooled"
    ranked = ranked_trials(study)
    has_pooled = any(pooled in trial.user_attrs["history"] for trial in ranked)
    rows = []
    missing = dict.fromkeys(report_models, "not run")
    for trial in study.get_trials(deepcopy=False):
        label = trial.user_attrs.get("report_model")
        if label in missing and "failure" in trial.user_attrs:
            missing[label] = f"failed: {trial.user_attrs['failure']}"
    for rank, trial in enumerate(ranked, start=1):
        label = trial.user_attrs.get("report_model")
        missing.pop(str(label), None)
        if rank <= LEADERS or label:
            scores = [f"{trial.value:.4f}"]
            if has_pooled:
                scores.append(f"{trial.user_attrs['history'][pooled][-1]:.4f}")
            name = f"{label} (report)" if label else describe(trial)
            weights = f"{trial.user_attrs['weights']:,}"
            rows.append((str(rank), str(trial.number), *scores, weights, name))
    header = ("rank", "trial", f"val {metric}", *["pooled"] * has_pooled, "weights", "model")
    dashes = ("–",) * (len(header) - 1)
    rows += [(*dashes, f"{label} (report), {why}") for label, why in missing.items()]
    return table([header, *rows])


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as text in aligned columns, the names first; the last column is left-aligned."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        lines.append("  " + "  ".join([*cells, row[-1]]))
    return "\n".join(lines)


def plural(count: int, noun: str) -> str:
    """For example "1 seed", "3 seeds"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def unfinished(study: optuna.Study, metric: str, missing: int) -> str:
    """What is said when the time is over before the trials are."""
    lines = ["", f"The time is over, {plural(missing, 'trial')} before the end."]
    if ranked_trials(study):
        lines += ["", leaderboard(study, metric, ())]
    done = len(finished_trials(study))
    lines += ["", f"The same command goes on; --trials {done} scores the best of these instead."]
    return "\n".join(lines)


def summary(
    study: optuna.Study,
    metric: str,
    searched: SpaceModule,
    validation: str,
    storage: str,
    tracking_uri: str,
) -> str:
    """The whole summary of a study that has a winner."""
    trials = study.get_trials(deepcopy=False)
    states = {state: sum(trial.state == state for trial in trials) for state in TrialState}
    interrupted = sum(is_interrupted(trial) for trial in trials)
    winner: dict[str, Any] = study.user_attrs["winner"]
    openings = study.user_attrs["test_openings"]
    last = openings[-1]
    changes = " (with uncommitted changes)" if last["dirty"] == "True" else ""
    seeds = winner["seeds"]
    spread = f"mean and SD over {seeds} seeds" if seeds > 1 else "1 seed"
    lines = [
        "",
        f"Study {study.study_name}: {states[TrialState.COMPLETE]} trials completed, "
        f"{states[TrialState.PRUNED]} pruned, {states[TrialState.FAIL] - interrupted} failed"
        + (f"; {interrupted} interrupted and run again" if interrupted else ""),
        "",
        leaderboard(study, metric, searched.REPORT_MODELS),
        "",
        textwrap.fill(searched.REPORT_NOTE, WIDTH),
        "",
        f"Winner: trial {winner['trial']}, {winner['weights']:,} weights",
        *(f"  {name} = {value}" for name, value in winner["point"].items()),
        "",
        *_validation_lines(study, metric, winner, validation),
        f"Test (retrained on all training images, {winner['epochs']} epochs; {spread})",
        *_score_lines(metric, winner["metrics"], "test"),
        f"  test set opened {plural(len(openings), 'time')}, last {last['when']} at commit "
        f"{last['commit'][:10]}{changes}",
        f"  pictures: {Path(winner['pictures'][0]).parent}",
        "",
        "Compare the trials:  optuna-dashboard " + storage,
        "See every run:       mlflow ui --backend-store-uri " + tracking_uri,
    ]
    return "\n".join(lines)


def _validation_lines(
    study: optuna.Study, metric: str, winner: Mapping[str, Any], validation: str
) -> list[str]:
    """The winner's validation score, and that over the retrainings' epochs if they are others."""
    trial = study.get_trials(deepcopy=False)[winner["trial"]]
    scores = {name: values[-1] for name, values in trial.user_attrs["history"].items()}
    epochs = len(trial.intermediate_values)
    lines = [
        f"Validation ({validation}, {epochs} epochs; the best of many, so on the bright side)",
        *_score_lines(metric, scores, "val"),
    ]
    if winner["epochs"] != epochs:
        lines.append(f"Validation of the same over the retrainings' {winner['epochs']} epochs")
        lines += _score_lines(metric, winner["metrics"], "val")
    return lines


def _score_lines(metric: str, scores: Mapping[str, float], prefix: str) -> list[str]:
    labels = {metric: "mean over images", f"{metric}_pooled": "pooled over pixels"}
    lines = []
    for name, label in labels.items():
        if f"{prefix}_{name}" in scores:
            deviation = scores.get(f"{prefix}_{name}_sd")
            spread = "" if deviation is None else f" ± {deviation:.4f}"
            lines.append(f"  {metric} {scores[f'{prefix}_{name}']:.4f}{spread}  ({label})")
    return lines
