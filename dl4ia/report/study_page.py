"""A study's report as one self-contained HTML page, read from the study alone."""

import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from dl4ia.evaluation.scoring import LOWER_IS_BETTER
from dl4ia.report import figures, findings, html
from dl4ia.report.provenance import provenance
from dl4ia.report.style import value_range
from dl4ia.search.pareto import pareto_front
from dl4ia.search.study import RANDOM_TRIALS
from dl4ia.search.trials import (
    ended_trials,
    first_value,
    history_of,
    is_interrupted,
    trial_of,
)
from dl4ia.search_space import SpaceModule
from dl4ia.selection.ablation import effects_of
from dl4ia.selection.finalists import Selection
from dl4ia.selection.ranking import ranked_trials
from dl4ia.session import Session
from dl4ia.statistics import expected_best
from dl4ia.text import plural, short

MOST_IMPORTANT = 6  # hyperparameters that are drawn


def write_study_page(session: Session, selection: Selection) -> Path:
    """Everything that a finished study has to say, from the study alone; returns the page."""
    study, metric = session.study, session.task.metric
    winner = findings.scored_winner(study, selection)
    trial = trial_of(study, selection.winner)
    openings = findings.openings(study.user_attrs.get("test_openings", ()))
    parts = [
        figures.scripts(),
        html.heading(study.study_name, 1),
        html.paragraph(
            f"Winner: trial {trial.number}, {findings.describe(trial)}, "
            f"{trial.user_attrs['weights']:,} weights. Chosen by validation alone; the test set "
            f"was opened {openings}."
        ),
        html.tiles(_headline(study, selection, metric, winner)),
        *(_test(study, metric, winner) if winner else ()),
        *_finalists(study, selection, metric),
        *_search(study, metric, session.searched, session.validation),
        *_front(study),
        *_choices(study, metric),
        *_ablation(study, metric, trial.number),
        *_budget(study, metric),
        *(_pictures(winner) if winner else ()),
        *_point(trial),
        *provenance(study, winner),
    ]
    html.write_page(session.page, study.study_name, parts)
    return session.page


def _name(study: optuna.Study, number: int) -> str:
    return findings.describe(trial_of(study, number))


def _headline(
    study: optuna.Study, selection: Selection, metric: str, winner: dict[str, Any] | None
) -> list[tuple[str, str]]:
    tiles = []
    if winner is None and selection.finalists:
        found = selection.estimate(selection.of(selection.winner))
        tiles.append(
            (
                findings.mean_of(found),
                f"validation {metric}, {findings.of_repeats(found)}; not scored on the test set",
            )
        )
    elif winner is None:
        trial = trial_of(study, selection.winner)
        tiles.append(
            (
                f"{first_value(trial):.4f}",
                f"validation {metric} in the search, chosen among many and so on the bright side; "
                "not scored on the test set",
            )
        )
    else:
        scores = winner["metrics"]
        tiles.append(
            (
                findings.spread(scores, f"test_{metric}"),
                f"test {metric}, {findings.spread_over(winner)}; 95 % interval "
                f"{findings.interval(scores, f'test_{metric}')}",
            )
        )
    if winner is not None and winner["compared_with"] is not None:
        name = _name(study, winner["compared_with"])
        tiles.append(
            (
                f"{scores[f'difference_{metric}']:+.4f}",
                f"against {name}, {findings.reports_best(study, selection, winner)}, retrained "
                "the same way; 95 % interval "
                f"{findings.interval(scores, f'difference_{metric}', '+')}; "
                f"P(winner better), one minus the p of a one-sided t-test, "
                f"{findings.p_better(scores, metric)}",
            )
        )
    if selection.finalists:
        tiles.append(
            (
                f"{selection.optimism:+.4f}",
                f"measured optimism: {findings.optimism(study, selection)}",
            )
        )
    return tiles


def _test(study: optuna.Study, metric: str, winner: dict[str, Any]) -> list[str]:
    """Every test metric of the winner, and the report's best model's beside it."""
    scores = winner["metrics"]
    other = winner["compared_with"]
    header = ["metric", "mean", "SD", "95 % interval"]
    if other is not None:
        header += [
            _name(study, other),
            "difference",
            "95 % interval",
            "P(better)",
        ]
    rows = [header]
    for name in findings.test_metrics(scores):
        row = [name, f"{scores[f'test_{name}']:.4f}", *_cells(scores, f"test_{name}")]
        if other is not None:
            row += ["–"] * 4
            if f"difference_{name}" in scores:
                row[4:] = [
                    f"{scores[f'report_{name}']:.4f}",
                    f"{scores[f'difference_{name}']:+.4f}",
                    findings.interval(scores, f"difference_{name}", "+"),
                    findings.p_better(scores, name),
                ]
        rows.append(row)
    whose = f" of {plural(winner['patients'], 'patient')}" if winner["patients"] else ""
    parts = [
        html.heading("Test"),
        html.paragraph(
            f"Retrained on all training images over {plural(winner['epochs'], 'epoch')} from "
            f"{plural(winner['seeds'], 'seed')}, and scored on "
            f"{plural(winner['images'], 'image')}{whose}: {findings.interval_over(winner)}. "
            "Intervals are by bootstrap (of a score without a single mistake, Clopper and "
            f"Pearson's); differences are paired. {_lower_is_better(scores)}"
        ),
        html.table(rows),
    ]
    ensembles = [["no single model", "metric", "value"]]
    for name, label, value in findings.ensembles(winner, metric):
        ensembles.append([label, name, f"{value:.4f}"])
    return [*parts, "<p></p>", html.table(ensembles)] if len(ensembles) > 1 else parts


def _lower_is_better(scores: dict[str, float]) -> str:
    """Which of the metrics are better where they are lower."""
    names = findings.test_metrics(scores)
    distances = [name for name in names if name in LOWER_IS_BETTER]
    told = [f"{name} (in pixels)" for name in distances]
    told += [name for name in names if name == "calibration_error"]
    return f"Lower is better of {' and '.join(told)}." if told else ""


def _cells(scores: dict[str, float], name: str) -> list[str]:
    deviation = f"{scores[f'{name}_sd']:.4f}" if f"{name}_sd" in scores else "–"
    return [deviation, findings.interval(scores, name)]


def _finalists(study: optuna.Study, selection: Selection, metric: str) -> list[str]:
    if not selection.finalists:
        return []
    parts = [
        html.heading("Finalists"),
        html.paragraph(
            "The best of many trials is on the bright side of its true value. So the search's best "
            f"points were trained again on {findings.over_repeats(selection)}, the same for all; "
            "the best mean wins. Intervals: corrected resampled t "
            "(Nadeau and Bengio 2003), since trainings share images."
        ),
        html.table(findings.finalists(study, selection), "last"),
        figures.fragment(figures.finalists(study, selection, metric)),
    ]
    if selection.simpler is not None:
        simpler = selection.of(selection.simpler)
        parts.append(
            html.paragraph(
                f"Simpler: trial {simpler.trial} with {simpler.weights:,} weights is within one "
                "standard error of the winner."
            )
        )
    if mixed := findings.several_ways(study, range(selection.repeats)):
        parts.append(html.paragraph(mixed))
    return parts


def _search(study: optuna.Study, metric: str, searched: SpaceModule, validation: str) -> list[str]:
    trials = study.get_trials(deepcopy=False)
    return [
        html.heading("Search"),
        html.paragraph(
            f"{findings.states(study)}; a trial's value is the validation {metric} ({validation}) "
            "at the end of training."
        ),
        html.table(findings.leaderboard(study, metric, searched.REPORT_MODELS), "last"),
        html.paragraph(searched.REPORT_NOTE),
        *_left_out(study),
        figures.fragment(
            figures.history(trials, metric, [findings.describe(trial) for trial in trials])
        ),
    ]


def _left_out(study: optuna.Study) -> list[str]:
    """What the plots do not show at first."""
    values = figures.completed_values(study.get_trials(deepcopy=False))
    low, _ = value_range(values)
    below = sum(value < low for value in values)
    if not below:
        return []
    return [
        html.paragraph(
            f"The plots begin at {low:.3f}, since beside lower values ({plural(below, 'trial')} "
            "that completed) the others would look alike: a double click shows all, but in the "
            "plot of parallel lines."
        )
    ]


def _front(study: optuna.Study) -> list[str]:
    """Of several objectives: what no other trial beats."""
    if len(study.directions) == 1:
        return []
    return [
        html.heading("Pareto front"),
        html.paragraph(
            "The trials that no other beats in every objective. The knee is the nearest to the "
            "best of each (weights and seconds by their logarithms), and wins."
        ),
        html.table(findings.front(study, pareto_front(study)), "last"),
    ]


def _choices(study: optuna.Study, metric: str) -> list[str]:
    """Importances, and the trials over what matters most; nothing where all are of one value."""
    if len({first_value(trial) for trial in ranked_trials(study)}) < 2:
        return []  # where Optuna would say that all hyperparameters matter the same
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of experimental features, and of constant parameters
        try:
            # Optuna takes a target to be better where it is lower.
            target = (lambda trial: -first_value(trial)) if len(study.directions) > 1 else None
            importances = optuna.importance.get_param_importances(study, target=target)
        except (ValueError, RuntimeError):  # of a search that no evaluator can judge
            return []
        varied = _varied(study)
        importances = {name: each for name, each in importances.items() if name in varied}
        drawn = [name for name, value in importances.items() if value > 0][:MOST_IMPORTANT]
        if not drawn:
            return []
        return [
            html.heading("Which choices went with good trials"),
            html.paragraph(
                "Optuna's importances (PED-ANOVA) over the completed trials: how far a "
                "hyperparameter tells the good from the rest. Of a search that went where it was "
                "good, so a hint; an ablation is the test of it."
            ),
            figures.fragment(figures.bars(importances, "importance")),
            figures.fragment(figures.slices(study, drawn, metric)),
            figures.fragment(figures.parallel(study, drawn, metric)),
        ]


def _varied(study: optuna.Study) -> set[str]:
    """The hyperparameters that the search could choose, where `--within` had left more than one."""
    return {
        name
        for trial in ranked_trials(study)
        for name, distribution in trial.distributions.items()
        if not distribution.single()
    }


def _ablation(study: optuna.Study, metric: str, winner: int) -> list[str]:
    ablation = findings.ablation_of(study, winner)
    if ablation is None:
        return []
    nothing = findings.nothing_turned_back(ablation)
    if nothing:
        return [html.heading("What each choice buys"), html.paragraph(nothing)]
    effects = effects_of(ablation)
    failed = [findings.effect_line(each, ablation) for each in effects if each.failure]
    return [
        html.heading("What each choice buys"),
        html.paragraph(
            f"The winner's validation {metric} minus that with one choice turned back to "
            f"{ablation['baseline']}'s and all others as tuned for the winner, over "
            f"{findings.paired_repeats(ablation)}. "
            f"{findings.BY_CHANCE} {findings.several_ways_of(study, ablation)}"
        ),
        html.table(findings.effects(ablation)),
        figures.fragment(figures.ablation(ablation, metric)),
        *map(html.paragraph, failed),
    ]


def _budget(study: optuna.Study, metric: str) -> list[str]:
    values = random_values(study, metric)
    if len(values) < 2:
        return []
    return [
        html.heading("What a budget buys"),
        html.paragraph(
            f"The expected best validation {metric} of n random trials, estimated without bias "
            f"from the {len(values)} of this study's that were drawn at random. One that failed "
            "counts as 0 and one that was pruned with the last value seen: of such the curve is on "
            "the low side."
        ),
        figures.fragment(figures.budget(expected_best(values).tolist(), metric)),
    ]


def random_values(study: optuna.Study, metric: str) -> list[float]:
    """Of the trials that were drawn before the sampler began to model; pruned: the last seen.

    Those that failed among them: 0, the lowest that Dice and accuracy can be.
    """
    values: list[float] = []
    finished = 0
    for trial in ended_trials(study):
        if "point" not in trial.user_attrs and finished < RANDOM_TRIALS:
            if trial.state != TrialState.FAIL:
                values.append(history_of(trial)[f"val_{metric}"][-1])
                finished += 1
            elif not is_interrupted(trial):
                values.append(0.0)
    return values


def _pictures(winner: dict[str, Any]) -> list[str]:
    files = [Path(name) for name in winner["pictures"]]
    parts = [html.heading("Pictures (first seed's model)")]
    parts += [html.picture(file.stem.replace("_", " "), file) for file in files if file.exists()]
    return parts if len(parts) > 1 else []


def _point(trial: FrozenTrial) -> list[str]:
    rows = [["hyperparameter", "winner"], *([k, short(v)] for k, v in trial.params.items())]
    return [html.heading("The winner's point"), html.table(rows)]
