"""What the user reads in the terminal: a line a trial, and the study's summary."""

import shlex
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from dl4ia.addresses import hide_password
from dl4ia.environment import describe_code
from dl4ia.report import findings
from dl4ia.search.pareto import knee_point, pareto_front
from dl4ia.search.trials import finished_trials, first_value, history_of, trial_of
from dl4ia.selection.ablation import effects_of
from dl4ia.selection.finalists import Selection
from dl4ia.selection.ranking import ranked_trials
from dl4ia.session import Session
from dl4ia.text import duration, plural, table

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
        f"{done:>3}/{trials}  {value}  {findings.describe(trial):<34} {epochs:>3} epochs "
        f"{seconds:>5.0f} s  {outcome}  [best {record}, {duration(left)} left]"
    )


def epoch_bar(epochs: int) -> tqdm:
    """Of what follows the search; none where the output is no terminal."""
    return tqdm(total=epochs, unit="epoch", disable=None, leave=False)


def front(study: optuna.Study, picture: Path) -> str:
    """What is said of several objectives when no winner is asked for."""
    found = pareto_front(study)
    lines = [
        "",
        f"Study {study.study_name}: the Pareto front, no trial beats these in every objective",
        "",
        table(findings.front(study, found)),
        "",
        f"Picture: {picture}",
        f"The same command with --knee takes trial {knee_point(found).number} for the winner.",
    ]
    return "\n".join(lines)


def unfinished(study: optuna.Study, metric: str, missing: int) -> str:
    """What is said when the time is over before the trials are."""
    lines = ["", f"The time is over, with {plural(missing, 'trial')} missing."]
    going_on = "The same command goes on"
    if ranked_trials(study):
        lines += ["", table(findings.leaderboard(study, metric, ()))]
        going_on += f"; --trials {len(finished_trials(study))} ends with the best of these"
    lines += ["", f"{going_on}."]
    return "\n".join(lines)


def summary(session: Session, selection: Selection) -> str:
    """The whole summary of a study that has a winner."""
    study, metric, searched = session.study, session.task.metric, session.searched
    winner = findings.scored_winner(study, selection)
    trial = trial_of(study, selection.winner)
    lines = [
        "",
        f"Study {study.study_name}: {findings.states(study)}",
        "",
        table(findings.leaderboard(study, metric, searched.REPORT_MODELS)),
        "",
        textwrap.fill(searched.REPORT_NOTE, WIDTH),
        *_finalist_lines(study, selection),
        "",
        f"Winner: trial {trial.number}, {trial.user_attrs['weights']:,} weights",
        *(f"  {name} = {value}" for name, value in trial.params.items()),
        "",
        *_validation_lines(study, trial, metric, winner, session.validation),
        *(_test_lines(study, selection, metric, winner) if winner else [_not_scored(study)]),
        *_ablation_lines(study, trial.number),
        "",
        f"Report page:         {session.page}",
        f"Compare the trials:  optuna-dashboard {shlex.quote(hide_password(session.storage))} "
        f"--artifact-dir {shlex.quote(str(session.trial_pictures))}",
        f"See every run:       {_runs_at(session.tracking_uri)}",
    ]
    return "\n".join(lines)


def _runs_at(tracking_uri: str) -> str:
    """How they are seen: a server has its own page."""
    if tracking_uri.startswith("http"):
        return hide_password(tracking_uri)
    return f"mlflow ui --backend-store-uri {shlex.quote(tracking_uri)}"


def _not_scored(study: optuna.Study) -> str:
    opened = study.user_attrs.get("test_openings", ())
    known = f", with --reopen-test: it was opened {findings.openings(opened)}" if opened else ""
    return f"Test: not scored; the same command without --seeds 0 scores this winner{known}"


def _finalist_lines(study: optuna.Study, selection: Selection) -> list[str]:
    if not selection.finalists:
        return []
    lines = [
        "",
        f"Finalists (up to {findings.over_repeats(selection)}, the same for all)",
        table(findings.finalists(study, selection)),
        f"  measured optimism: {findings.optimism(study, selection)}",
    ]
    if selection.simpler is not None:
        simpler = selection.of(selection.simpler)
        lines.append(
            f"  simpler: trial {simpler.trial}, {simpler.weights:,} weights, is within one "
            "standard error of the winner"
        )
    if mixed := findings.several_ways(study, range(selection.repeats)):
        lines.append(f"  {mixed}")
    return lines


def _ablation_lines(study: optuna.Study, winner: int) -> list[str]:
    ablation = findings.ablation_of(study, winner)
    if ablation is None:
        return []
    nothing = findings.nothing_turned_back(ablation)
    if nothing:
        return ["", f"Ablation: {nothing}"]
    return [
        "",
        f"Ablation: what each choice buys, turned back alone to {ablation['baseline']}'s (mean and "
        f"95 % interval over {findings.paired_repeats(ablation)})",
        *(f"  {findings.effect_line(effect, ablation)}" for effect in effects_of(ablation)),
        *(f"  {line}" for line in [findings.several_ways_of(study, ablation)] if line),
    ]


def _validation_lines(
    study: optuna.Study,
    trial: FrozenTrial,
    metric: str,
    winner: Mapping[str, Any] | None,
    validation: str,
) -> list[str]:
    """The winner's validation score, and that over the retrainings' epochs if they are others."""
    pooled = "pooled over pixels" + (
        " of each fold, mean over folds" if study.user_attrs["identity"]["folds"] > 1 else ""
    )
    scores = {name: values[-1] for name, values in history_of(trial).items()}
    epochs = len(history_of(trial)["seconds"])
    lines = [
        f"Validation ({validation}, {plural(epochs, 'epoch')}; chosen among many, so on the bright "
        "side)",
        *_score_lines(metric, scores, "val", pooled),
    ]
    if winner and winner["epochs"] != epochs:
        lines.append(f"Validation of the same over the retrainings' {winner['epochs']} epochs")
        lines += _score_lines(metric, winner["metrics"], "val", pooled)
    return lines


def _test_lines(
    study: optuna.Study, selection: Selection, metric: str, winner: Mapping[str, Any]
) -> list[str]:
    """The winner's scores, what is no single model's, and how it compares with the report's."""
    openings = study.user_attrs["test_openings"]
    last = openings[-1]
    scores = winner["metrics"]
    over = f"{winner['patients']} patients" if winner["patients"] else f"{winner['images']} images"
    lines = [
        f"Test (retrained on all training images, {plural(winner['epochs'], 'epoch')}; "
        f"{findings.spread_over(winner)}, {findings.interval_over(winner)})",
        *_score_lines(metric, scores, "test"),
    ]
    further = [name for name in findings.test_metrics(scores) if not name.startswith(metric)]
    lines += [f"  {name} {_with_spread(scores, f'test_{name}')}" for name in further]
    lines += [
        f"  {name} {value:.4f}  ({label}; no single model)"
        for name, label, value in findings.ensembles(winner, metric)
    ]
    if winner["compared_with"] is not None:
        other = trial_of(study, winner["compared_with"])
        who = findings.reports_best(study, selection, winner)
        lines.append(
            f"Against {findings.describe(other)}, {who}, "
            f"retrained the same way (paired over {over})"
        )
        for name in (metric, f"{metric}_pooled"):
            if f"difference_{name}" in scores:
                lines.append(
                    f"  {name} {scores[f'difference_{name}']:+.4f}"
                    f"{_within(scores, f'difference_{name}', '+')} "
                    f"(from {scores[f'report_{name}']:.4f}); "
                    f"P(winner better) {findings.p_better(scores, name)}"
                )
    folder = Path(winner["scores"]).parent  # elsewhere, where the study was gone on with by itself
    return [
        *lines,
        f"  test set opened {findings.openings(openings)}, last {last['when']} at commit "
        f"{describe_code(last, 10)}",
        *[f"  pictures, scores of every image: {folder}"] * folder.exists(),
    ]


def _with_spread(scores: Mapping[str, float], name: str) -> str:
    return findings.spread(scores, name) + _within(scores, name)


def _within(scores: Mapping[str, float], name: str, sign: str = "") -> str:
    """The 95 % interval in brackets, where there is one; sign: "+" for a difference."""
    if f"{name}_low" not in scores:
        return ""
    return f" [{scores[f'{name}_low']:{sign}.4f}, {scores[f'{name}_high']:{sign}.4f}]"


def _score_lines(
    metric: str, scores: Mapping[str, float], prefix: str, pooled: str = "pooled over pixels"
) -> list[str]:
    labels = {metric: "mean over images", f"{metric}_pooled": pooled}
    return [
        f"  {metric} {_with_spread(scores, f'{prefix}_{name}')}  ({label})"
        for name, label in labels.items()
        if f"{prefix}_{name}" in scores
    ]
