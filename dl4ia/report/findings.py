"""What a study found, as rows and lines for every reader: terminal, page and dashboard."""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from dl4ia.environment import describe_code
from dl4ia.search.pareto import knee_point
from dl4ia.search.trials import first_value, history_of, is_interrupted, is_skipped, trial_of
from dl4ia.selection.ablation import Effect, effects_of, estimate_of
from dl4ia.selection.finalists import Selection
from dl4ia.selection.ranking import ranked_trials
from dl4ia.selection.repeats import kept_repeats
from dl4ia.statistics import FEWEST_CLUSTERS, Estimate
from dl4ia.text import plural, score_behind, short

LEADERS = 10
NO_OTHERS = "with so few images or patients there are hardly others"
BY_CHANCE = "Of twenty such intervals about one leaves out 0 by chance."


def describe(trial: FrozenTrial) -> str:
    """The named point, or the choices that say most."""
    named = trial.user_attrs.get("point")
    point = trial.params
    telling = ("architecture", "normalization", "optimizer")
    return str(named or " ".join(str(point[name]) for name in telling if name in point))


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
        elif label in missing and is_skipped(trial):
            missing[label] = f"skipped: {trial.user_attrs['skipped']}"
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


def scored_winner(study: optuna.Study, selection: Selection) -> dict[str, Any] | None:
    """The study's record of its winner and its test scores; None where they were not asked for."""
    winner: dict[str, Any] = study.user_attrs.get("winner", {})
    return winner if winner.get("trial") == selection.winner else None


def optimism(study: optuna.Study, selection: Selection) -> str:
    """What the search had promised of its best beyond what that is on fresh splits and seeds."""
    best = selection.searched_best
    equals = sum(each.searched == best.searched for each in selection.finalists)
    among = f" (one of {equals} equals)" if equals > 1 else ""
    if any(each.searched > best.searched for each in selection.finalists):
        among += " of those that could be trained again"
    split = "split" if selection.reused else "fresh split"
    said = (
        f"trial {best.trial}, the search's best{among}, had {best.searched:.4f} there and has "
        f"{selection.estimate(best).mean:.4f} on {plural(len(best.values), split)} and "
        f"{'seeds' if len(best.values) > 1 else 'seed'}: {selection.optimism:+.4f}"
    )
    if best.given_up and not best.failed:
        said += ", on the high side, since it was given up after low repeats"
    report, shared = selection.report_model, selection.shared_optimism
    if report is not None and shared is not None:
        name = describe(trial_of(study, report))
        count, mine, its, error = shared
        beside = f"{name}, which was not picked from so many, has {its:+.4f}"
        if count < len(best.values):
            beside += f" over the first {plural(count, 'repeat')}, where trial {best.trial} has"
            beside += f" {mine:+.4f}"
        elif count < selection.repeats:
            beside += " over the same"
        if error is not None:
            beside += f"; {mine - its:+.4f} apart, with a standard error of {error:.4f}"
        said += f" ({beside})"
    if best.trial != selection.winner:
        said += f"; the winner, chosen on these splits, has {selection.winners_optimism:+.4f}"
    return said


def over_repeats(selection: Selection) -> str:
    """What the finalists were trained on again."""
    if not selection.reused:
        return plural(selection.repeats, "fresh split and seed", "fresh splits and seeds")
    every = plural(selection.repeats, "split and seed", "splits and seeds")
    return f"{every}, {selection.reused} of them on the search's own splits, since {NO_OTHERS}"


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
                interval = between(found)
        model = describe(trials[each.trial]) + (f" ({each.given_up})" if each.given_up else "")
        cells = [str(each.trial), f"{each.searched:.4f}", str(len(each.values)), mean, deviation]
        rows.append((*cells, interval, f"{each.weights:,}", model))
    return rows


def front(study: optuna.Study, front: Sequence[FrozenTrial]) -> list[tuple[str, ...]]:
    """Rows: the Pareto front with the value of every objective; the knee is marked."""
    rows: list[tuple[str, ...]] = [("trial", *(study.metric_names or ()), "model")]
    knee = knee_point(front)
    for trial in front:
        costs = [f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in trial.values[1:]]
        model = describe(trial) + (", the knee" if trial.number == knee.number else "")
        rows.append((str(trial.number), f"{first_value(trial):.4f}", *costs, model))
    return rows


def effect_line(effect: Effect, ablation: Mapping[str, Any]) -> str:
    """One choice turned back, and what that costs; ablation: the study's attribute."""
    turned = f"{effect.name}: {short(effect.chosen)} → {short(effect.turned_back)}"
    if effect.failure:
        return f"{turned}  failed: {effect.failure}"
    found, all_repeats = estimate_of(effect, ablation), ablation["repeats"]
    fewer = f"  ({found.count} of {all_repeats} repeats)" if found.count < all_repeats else ""
    return f"{found.mean:+.4f} [{between(found, '+', ', ')}]  {turned}{fewer}"


def between(found: Estimate, sign: str = "", word: str = " to ") -> str:
    """The interval of a mean over repeats; sign: "+" of a difference."""
    if not found.has_interval:
        return "all repeats alike" if found.count > 1 else "–"
    return f"{found.low:{sign}.4f}{word}{found.high:{sign}.4f}"


def mean_of(found: Estimate) -> str:
    """A mean over repeats, ± their standard deviation where there are several."""
    return f"{found.mean:.4f}" + (f" ± {found.deviation:.4f}" if found.count > 1 else "")


def of_repeats(found: Estimate) -> str:
    """What that is of, and its interval where it has one."""
    over = f"the finalists' {found.count} splits and seeds"
    spread = f"mean ± SD over {over}" if found.count > 1 else "on the finalists' split and seed"
    return spread + (f"; 95 % interval {between(found)}" if found.has_interval else "")


def ablation_of(study: optuna.Study, winner: int) -> dict[str, Any] | None:
    """What the study has of this trial's choices, turned back; None where it was not asked."""
    ablation: dict[str, Any] = study.user_attrs.get("ablation", {})
    if ablation.get("trial") != winner:
        return None
    chosen_by = study.user_attrs.get("selection", {}).get("repeats", 0)  # of the numbers 0, 1, …
    shared = min(ablation["repeats"], max(0, chosen_by - ablation.get("first_repeat", chosen_by)))
    return ablation | {"chosen_by": shared}


def nothing_turned_back(ablation: Mapping[str, Any]) -> str:
    """Why an ablation has no effects; "" where it has some."""
    if ablation["effects"]:
        return ""
    return f"The winner has all of {ablation['baseline']}'s choices: there is none to turn back."


def paired_repeats(ablation: Mapping[str, Any]) -> str:
    """What an ablation's effects are means over."""
    reused = ablation.get("reused", 0)  # not recorded in older studies
    asked = ablation["repeats"]
    counts = {len(each.differences) for each in effects_of(ablation) if not each.failure}
    fewer = f"up to {max(counts)} of " if counts - {asked} else ""
    count = fewer + plural(asked, "paired split and seed", "paired splits and seeds")
    count += f" ({reused} on earlier splits, since {NO_OTHERS})" if reused else ""
    if chosen_by := ablation.get("chosen_by", 0):
        count += (
            f" (by {chosen_by} of which the winner was chosen since, which flatters its choices)"
        )
    return count


def several_ways(study: optuna.Study, numbers: Container[int]) -> str:
    """That the repeats of these numbers were not all made alike, as where the code changed before
    they were gone on with; "" where they were.

    They are compared in pairs, so that a change between them is taken for the points'.
    """
    ways = {
        f"commit {describe_code(made, 10)}, {made.get('device')}, {made.get('precision')}"
        for kept in kept_repeats(study).values()
        if kept["repeat"] in numbers and (made := kept["environment"])
    }
    if len(ways) < 2:
        return ""
    named = "; ".join(sorted(ways))
    return (
        f"These trainings were not all made with the same code and hardware ({named}), which may "
        "explain some of the differences."
    )


def several_ways_of(study: optuna.Study, ablation: Mapping[str, Any]) -> str:
    """The same of an ablation's repeats; ablation: the study's attribute."""
    first = ablation.get("first_repeat", 0)  # not recorded in older studies
    return several_ways(study, range(first, first + ablation["repeats"]))


def effects(ablation: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows: what each choice buys; ablation: the study's attribute. Without those that failed."""
    rows: list[tuple[str, ...]] = [
        ("choice", "winner", str(ablation["baseline"]), "repeats", "effect", "95 % interval")
    ]
    for each in effects_of(ablation):
        if not each.failure:
            found = estimate_of(each, ablation)
            cells = (each.name, short(each.chosen), short(each.turned_back), str(found.count))
            rows.append((*cells, f"{found.mean:+.4f}", between(found, "+")))
    return rows


def test_metrics(scores: Mapping[str, float]) -> list[str]:
    """The test metrics' own names, without what is said of each: its SD, interval and so on."""
    known = [name.removeprefix("test_") for name in scores if name.startswith("test_")]
    # A class may be called "low" too.
    return [name for name in known if score_behind(name) not in known]


def spread(scores: Mapping[str, float], name: str) -> str:
    """One of a winner's scores, ± its standard deviation over seeds where there are several."""
    deviation = f" ± {scores[f'{name}_sd']:.4f}" if f"{name}_sd" in scores else ""
    return f"{scores[name]:.4f}{deviation}"


def interval(scores: Mapping[str, float], name: str, sign: str = "") -> str:
    """One of a winner's scores' 95 % interval, where it has one; sign: "+" for a difference."""
    if f"{name}_low" not in scores:
        return "–"
    return f"{scores[f'{name}_low']:{sign}.4f} to {scores[f'{name}_high']:{sign}.4f}"


def openings(known: Sequence[Mapping[str, Any]]) -> str:
    """How often a study has opened its test set, and how often others had when it last did."""
    others = known[-1].get("by_others", 0) if known else 0
    before = f", after {plural(others, 'time')} by other studies in its database" if others else ""
    return plural(len(known), "time") + before


def p_better(scores: Mapping[str, float], name: str) -> str:
    """One minus the one-sided p of the winner being better than the report's, where it is known."""
    return f"{scores[f'p_better_{name}']:.3f}" if f"p_better_{name}" in scores else "–"


def reports_best(study: optuna.Study, selection: Selection, winner: Mapping[str, Any]) -> str:
    """What the model is that a winner was compared with: the study may have gone on since."""
    within = " inside what was searched" if study.user_attrs["identity"].get("within") else ""
    since = "" if winner["compared_with"] == selection.report_model else " when the test set opened"
    return f"the report's best{within}{since}"


def spread_over(winner: Mapping[str, Any]) -> str:
    """What a winner's scores are of."""
    return f"mean ± SD over {winner['seeds']} seeds" if winner["seeds"] > 1 else "of 1 seed"


def interval_over(winner: Mapping[str, Any]) -> str:
    """What a winner's 95 % intervals are over, or that there are none."""
    clusters = winner["patients"] or winner["images"]
    over = plural(clusters, "patient" if winner["patients"] else "image")
    if clusters < FEWEST_CLUSTERS:
        said = f"no interval of so few as {over}"
    else:
        said = f"95 % interval over {over}" + (" and seeds" if winner["seeds"] > 1 else "")
    if known := winner.get("of_known_patients"):  # not recorded in older studies
        said += f"; {known} of the {winner['images']} images are of patients trained on too"
    return said


def ensembles(winner: Mapping[str, Any], metric: str) -> list[tuple[str, str, float]]:
    """A metric's name, of what that is no single model, and its value on the test images."""
    scores = winner["metrics"]
    return [
        (name, label, scores[f"test_{name}_{suffix}"])
        for suffix, label in ensemble_labels(winner["seeds"]).items()
        for name in (metric, f"{metric}_pooled")
        if f"test_{name}_{suffix}" in scores
    ]


def ensemble_labels(seeds: int) -> dict[str, str]:
    """The end of a score's name -> in words; without the ensemble of a single seed."""
    of_seeds = "" if seeds == 1 else f"ensemble of the {seeds} seeds, "
    labels = {} if seeds == 1 else {"ensemble": of_seeds.removesuffix(", ")}
    return labels | {"ensemble_averaged": f"{of_seeds}mean over flips and turns"}


def states(study: optuna.Study) -> str:
    """How many trials were completed, pruned, failed, interrupted and skipped, in words."""
    every = study.get_trials(deepcopy=False)
    trials = [trial for trial in every if not is_skipped(trial)]
    skipped = len(every) - len(trials)
    counts = {state: sum(trial.state == state for trial in trials) for state in TrialState}
    interrupted = sum(is_interrupted(trial) for trial in trials)
    words = (
        f"{counts[TrialState.COMPLETE]} trials completed, {counts[TrialState.PRUNED]} pruned, "
        f"{counts[TrialState.FAIL] - interrupted} failed"
    )
    words += f"; {interrupted} interrupted and run again" if interrupted else ""
    return words + (f"; {skipped} skipped, of too many weights" if skipped else "")
