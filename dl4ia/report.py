"""What the user reads in the terminal: a line a trial, and the study's summary."""

import shlex
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from dl4ia.ablation import Effect, effects_of
from dl4ia.attributes import history_of
from dl4ia.pareto import knee_point, pareto_front
from dl4ia.search_space import SpaceModule
from dl4ia.selection import Selection, ranked_trials
from dl4ia.study import finished_trials, first_value, is_interrupted
from dl4ia.text import duration, plural, table

LEADERS = 10
WIDTH = 100  # characters of a line of prose


def trial_line(trial: FrozenTrial, done: int, trials: int, best: float | None, left: float) -> str:
    """One line for a finished trial. left: seconds until the search ends, as far as one knows."""
    attributes = trial.user_attrs
    value = f"{first_value(trial):.4f}" if trial.state == TrialState.COMPLETE else "  –   "
    outcome = trial.state.name.lower()
    if trial.state == TrialState.PRUNED:
        outcome = f"pruned at {list(trial.intermediate_values.values())[-1]:.4f}"
    if "failure" in attributes:
        outcome = f"failed: {attributes['failure']}"
    elif trial.state == TrialState.FAIL:
        outcome = f"interrupted: {attributes.get('interrupted', 'stopped')}"
    epochs = len(next(iter(history_of(trial).values()), ()))
    seconds = trial.duration.total_seconds() if trial.duration else 0.0
    record = "–" if best is None else f"{best:.4f}"
    return (
        f"{done:>3}/{trials}  {value}  {describe(trial):<34} {epochs:>3} epochs {seconds:>5.0f} s  "
        f"{outcome}  [best {record}, {duration(left)} left]"
    )


def epoch_bar(epochs: int) -> tqdm:
    """Of what follows the search; none where the output is no terminal."""
    return tqdm(total=epochs, unit="epoch", disable=None, leave=False)


def describe(trial: FrozenTrial) -> str:
    """The named point, or the choices that say most."""
    named = trial.user_attrs.get("point")
    point = trial.params
    short = " ".join(
        str(point[name]) for name in ("architecture", "normalization", "optimizer") if name in point
    )
    return str(named) if named else short


def leaderboard(
    study: optuna.Study, metric: str, report_models: Iterable[str]
) -> list[tuple[str, ...]]:
    """Rows: the best trials, and every report model with its rank, or why it has none."""
    pooled = f"val_{metric}_pooled"
    ranked = ranked_trials(study)
    has_pooled = any(pooled in history_of(trial) for trial in ranked)
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
            scores = [f"{first_value(trial):.4f}"]
            if has_pooled:
                scores.append(f"{history_of(trial)[pooled][-1]:.4f}")
            name = f"{label} (report)" if label else describe(trial)
            weights = f"{trial.user_attrs['weights']:,}"
            rows.append((str(rank), str(trial.number), *scores, weights, name))
    header = ("rank", "trial", f"val {metric}", *["pooled"] * has_pooled, "weights", "model")
    dashes = ("–",) * (len(header) - 1)
    rows += [(*dashes, f"{label} (report), {why}") for label, why in missing.items()]
    return [header, *rows]


def finalists(study: optuna.Study, selection: Selection) -> list[tuple[str, ...]]:
    """Rows: each finalist's value in the search and over the repeats, and why it was given up."""
    trials = study.get_trials(deepcopy=False)
    header = ("trial", "search", "repeats", "mean", "SD", "95 % interval", "weights", "model")
    rows: list[tuple[str, ...]] = [header]
    for each in selection.finalists:
        mean, deviation, interval = "–", "–", "–"
        if each.values:
            found = selection.estimate(each)
            mean = f"{found.mean:.4f}"
            if found.count > 1:
                deviation = f"{found.deviation:.4f}"
                interval = f"{found.low:.4f} to {found.high:.4f}"
        model = describe(trials[each.trial]) + (f" ({each.given_up})" if each.given_up else "")
        cells = [str(each.trial), f"{each.searched:.4f}", str(len(each.values)), mean, deviation]
        rows.append((*cells, interval, f"{each.weights:,}", model))
    return rows


def front_rows(study: optuna.Study, front: Sequence[FrozenTrial]) -> list[tuple[str, ...]]:
    """Rows: the Pareto front with the value of every objective; the knee is marked."""
    rows: list[tuple[str, ...]] = [("trial", *(study.metric_names or ()), "model")]
    knee = knee_point(front)
    for trial in front:
        costs = [f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in trial.values[1:]]
        model = describe(trial) + (", the knee" if trial.number == knee.number else "")
        rows.append((str(trial.number), f"{first_value(trial):.4f}", *costs, model))
    return rows


def front(study: optuna.Study, picture: Path) -> str:
    """What is said of several objectives when no winner is asked for."""
    found = pareto_front(study)
    lines = [
        "",
        f"Study {study.study_name}: the Pareto front, no trial beats these in every objective",
        "",
        table(front_rows(study, found)),
        "",
        f"Picture: {picture}",
        f"The same command with --knee retrains and scores trial {knee_point(found).number}.",
    ]
    return "\n".join(lines)


def effect_line(effect: Effect, held_out: float) -> str:
    """One choice turned back, and what that costs."""
    turned = f"{effect.name}: {effect.chosen} → {effect.turned_back}"
    if effect.failure:
        return f"{turned}  failed: {effect.failure}"
    found = effect.estimate(held_out)
    return f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]  {turned}"


def unfinished(study: optuna.Study, metric: str, missing: int) -> str:
    """What is said when the time is over before the trials are."""
    lines = ["", f"The time is over, {plural(missing, 'trial')} before the end."]
    if ranked_trials(study):
        lines += ["", table(leaderboard(study, metric, ()))]
    done = len(finished_trials(study))
    lines += ["", f"The same command goes on; --trials {done} scores the best of these instead."]
    return "\n".join(lines)


def summary(
    study: optuna.Study,
    selection: Selection,
    metric: str,
    searched: SpaceModule,
    validation: str,
    page: Path,
    storage: str,
    trial_pictures: Path,
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
    lines = [
        "",
        f"Study {study.study_name}: {states[TrialState.COMPLETE]} trials completed, "
        f"{states[TrialState.PRUNED]} pruned, {states[TrialState.FAIL] - interrupted} failed"
        + (f"; {interrupted} interrupted and run again" if interrupted else ""),
        "",
        table(leaderboard(study, metric, searched.REPORT_MODELS)),
        "",
        textwrap.fill(searched.REPORT_NOTE, WIDTH),
        *_finalist_lines(study, selection),
        "",
        f"Winner: trial {winner['trial']}, {winner['weights']:,} weights",
        *(f"  {name} = {value}" for name, value in winner["point"].items()),
        "",
        *_validation_lines(study, metric, winner, validation),
        *_test_lines(study, metric, winner),
        f"  test set opened {plural(len(openings), 'time')}, last {last['when']} at commit "
        f"{last['commit'][:10]}{changes}",
        f"  pictures, scores of every image: {Path(winner['pictures'][0]).parent}",
        *_ablation_lines(study, winner["trial"]),
        "",
        f"Report page:         {page}",
        f"Compare the trials:  optuna-dashboard {shlex.quote(storage)} --artifact-dir "
        + shlex.quote(str(trial_pictures)),
        "See every run:       mlflow ui --backend-store-uri " + tracking_uri,
    ]
    return "\n".join(lines)


def _finalist_lines(study: optuna.Study, selection: Selection) -> list[str]:
    if not selection.finalists:
        return []
    winner = selection.of(selection.winner)
    optimism = winner.searched - selection.estimate(winner).mean
    lines = [
        "",
        f"Finalists (up to {selection.repeats} fresh splits and seeds, the same for all)",
        table(finalists(study, selection)),
        f"  measured optimism of the search: {winner.searched:.4f} - "
        f"{selection.estimate(winner).mean:.4f} = {optimism:.4f}",
    ]
    if selection.simpler is not None:
        simpler = selection.of(selection.simpler)
        lines.append(
            f"  simpler: trial {simpler.trial}, {simpler.weights:,} weights, is within one "
            "standard error of the winner"
        )
    return lines


def _ablation_lines(study: optuna.Study, winner: int) -> list[str]:
    ablation = study.user_attrs.get("ablation", {})
    if ablation.get("trial") != winner:
        return []
    return [
        "",
        f"Ablation: what each choice buys, turned back alone to {ablation['baseline']}'s (mean and "
        f"95 % interval over {ablation['repeats']} paired repeats)",
        *(f"  {effect_line(effect, ablation['held_out'])}" for effect in effects_of(ablation)),
    ]


def _validation_lines(
    study: optuna.Study, metric: str, winner: Mapping[str, Any], validation: str
) -> list[str]:
    """The winner's validation score, and that over the retrainings' epochs if they are others."""
    trial = study.get_trials(deepcopy=False)[winner["trial"]]
    scores = {name: values[-1] for name, values in history_of(trial).items()}
    epochs = len(history_of(trial)["seconds"])
    lines = [
        f"Validation ({validation}, {plural(epochs, 'epoch')}; the best of many, so on the bright "
        "side)",
        *_score_lines(metric, scores, "val"),
    ]
    if winner["epochs"] != epochs:
        lines.append(f"Validation of the same over the retrainings' {winner['epochs']} epochs")
        lines += _score_lines(metric, winner["metrics"], "val")
    return lines


def _test_lines(study: optuna.Study, metric: str, winner: Mapping[str, Any]) -> list[str]:
    """The winner's scores, what is no single model's, and how it compares with the report's."""
    scores, seeds = winner["metrics"], winner["seeds"]
    spread = f"mean ± SD over {seeds} seeds" if seeds > 1 else "1 seed"
    over = f"{winner['patients']} patients" if winner["patients"] else f"{winner['images']} images"
    lines = [
        f"Test (retrained on all training images, {plural(winner['epochs'], 'epoch')}; {spread}, "
        f"95 % interval over {over} and seeds)",
        *_score_lines(metric, scores, "test"),
    ]
    further = [name for name in test_metrics(scores) if not name.startswith(metric)]
    lines += [f"  {name} {_with_spread(scores, f'test_{name}')}" for name in further]
    labels = {"ensemble": f"ensemble of the {plural(seeds, 'seed')}"}
    labels["ensemble_averaged"] = labels["ensemble"] + ", mean over flips and quarter turns"
    for suffix, label in labels.items():
        for name in (metric, f"{metric}_pooled"):
            if f"test_{name}_{suffix}" in scores:
                value = scores[f"test_{name}_{suffix}"]
                lines.append(f"  {name} {value:.4f}  ({label}; no single model)")
    if winner["compared_with"] is not None:
        other = study.get_trials(deepcopy=False)[winner["compared_with"]]
        lines.append(
            f"Against {describe(other)}, the report's best, retrained the same way (paired over "
            f"{over})"
        )
        for name in (metric, f"{metric}_pooled"):
            if f"difference_{name}" in scores:
                low, high = (scores[f"difference_{name}_{end}"] for end in ("low", "high"))
                lines.append(
                    f"  {name} {scores[f'difference_{name}']:+.4f} [{low:+.4f}, {high:+.4f}] "
                    f"(from {scores[f'report_{name}']:.4f}); "
                    f"P(winner better) {scores[f'p_better_{name}']:.3f}"
                )
    return lines


def test_metrics(scores: Mapping[str, float]) -> list[str]:
    """The test metrics' own names, without those of classes."""
    tests = [name.removeprefix("test_") for name in scores if name.startswith("test_")]
    ends = ("_sd", "_low", "_high", "_ensemble", "_averaged")
    return [name for name in tests if not name.endswith(ends) and "_seed_" not in name]


def interval(scores: Mapping[str, float], name: str, sign: str = "") -> str:
    """The 95 % interval of one of a winner's scores; sign: "+" for a difference."""
    return f"{scores[f'{name}_low']:{sign}.4f} to {scores[f'{name}_high']:{sign}.4f}"


def _with_spread(scores: Mapping[str, float], name: str) -> str:
    text = f"{scores[name]:.4f}"
    if f"{name}_sd" in scores:
        text += f" ± {scores[f'{name}_sd']:.4f}"
    if f"{name}_low" in scores:
        text += f" [{scores[f'{name}_low']:.4f}, {scores[f'{name}_high']:.4f}]"
    return text


def _score_lines(metric: str, scores: Mapping[str, float], prefix: str) -> list[str]:
    labels = {metric: "mean over images", f"{metric}_pooled": "pooled over pixels"}
    return [
        f"  {metric} {_with_spread(scores, f'{prefix}_{name}')}  ({label})"
        for name, label in labels.items()
        if f"{prefix}_{name}" in scores
    ]
