from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from dl4ia.errors import InputError, OutOfMemory, TrialFailure
from dl4ia.report import findings
from dl4ia.selection.finalists import Selection, select, without_finalists
from dl4ia.selection.ranking import best_trial, choose_finalists, ranked_trials

COMPLETE, PRUNED = TrialState.COMPLETE, TrialState.PRUNED


def study_of(*trials: tuple[float, int, TrialState]) -> optuna.Study:
    """Each with a point of its own: x is the trial's number."""
    study = optuna.create_study(direction="maximize")
    for number, (value, weights, state) in enumerate(trials):
        add(study, number, value, weights, state)
    return study


def add(
    study: optuna.Study, x: float, value: float, weights: int, state: TrialState, **attributes: str
) -> None:
    study.add_trial(
        create_trial(
            value=value if state != TrialState.FAIL else None,
            state=state,
            params={"x": float(x)},
            distributions={"x": FloatDistribution(0, 100)},
            user_attrs={"weights": weights, "failure": "epoch 2: out of memory"} | attributes,
        )
    )


@dataclass
class Known:
    """Repeats whose values are known: x of a point -> one value a repeat; None fails."""

    values: Mapping[float, list[float | None]]
    held_out: float = 0.25
    reused: int = 0
    step: float = 0.0
    error: TrialFailure = field(default_factory=lambda: TrialFailure("epoch 1: loss is nan"))
    trained: list[tuple[float, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def numbers(self) -> range:
        return range(len(next(iter(self.values.values()))))

    def prepare(self, *_: object) -> None:
        pass

    def value(self, point: Mapping[str, Any], number: int, *_: object) -> float:
        self.trained.append((point["x"], number))
        found = self.values[point["x"]][number]
        if found is None:
            raise self.error
        return found


def selected(study: optuna.Study, repeats: Known, count: int = 5) -> Selection:
    trials = choose_finalists(study, count)
    return select(trials, repeats, lambda: None, lambda *_: None)  # type: ignore[arg-type]


def test_the_best_completed_trial_leads() -> None:
    study = study_of((0.7, 10, COMPLETE), (0.9, 10, PRUNED), (0.8, 10, COMPLETE))
    assert best_trial(study).number == 2
    assert [trial.number for trial in ranked_trials(study)] == [2, 0]
    assert without_finalists(study, best_trial(study)).winner == 2


def test_of_equals_the_one_with_fewer_weights_leads() -> None:
    study = study_of((0.7, 30, COMPLETE), (0.7, 10, COMPLETE), (0.7, 20, COMPLETE))
    assert [trial.number for trial in ranked_trials(study)] == [1, 2, 0]


def test_without_a_completed_trial_the_last_failure_is_named() -> None:
    with pytest.raises(InputError, match="epoch 2: out of memory"):
        choose_finalists(study_of((0.0, 1, TrialState.FAIL)), 5)


def test_finalists_are_different_points_and_the_best_report_model() -> None:
    study = optuna.create_study(direction="maximize")
    add(study, 1, 0.5, 10, COMPLETE, report_model="weak")
    add(study, 2, 0.6, 10, COMPLETE, report_model="strong")
    add(study, 3, 0.9, 10, COMPLETE)
    add(study, 3, 0.88, 10, COMPLETE)  # the same point again
    add(study, 4, 0.8, 10, COMPLETE)
    add(study, 5, 0.7, 10, COMPLETE)
    assert [trial.number for trial in choose_finalists(study, 2)] == [2, 4, 1]
    assert [trial.number for trial in choose_finalists(study, 4)] == [2, 4, 5, 1]


def test_the_best_mean_over_repeats_wins_and_not_the_best_of_the_search() -> None:
    study = study_of((0.90, 30, COMPLETE), (0.88, 20, COMPLETE))
    selection = selected(study, Known({0.0: [0.80, 0.84, 0.82], 1.0: [0.83, 0.84, 0.85]}))
    assert selection.winner == 1
    assert [each.trial for each in selection.finalists] == [1, 0]
    assert selection.estimate(selection.of(1)).mean == pytest.approx(0.84)
    assert selection.of(0).searched == 0.9
    assert selection.report_model is None
    assert Selection.from_record(selection.as_record()) == selection


def test_optimism_is_told_beside_that_of_the_report_s_best() -> None:
    study = optuna.create_study(direction="maximize")
    add(study, 0, 0.60, 10, COMPLETE, report_model="unet", point="unet")
    add(study, 1, 0.90, 10, COMPLETE)
    selection = selected(study, Known({0.0: [0.55, 0.59], 1.0: [0.81, 0.83]}))
    assert selection.optimism == pytest.approx(0.08)
    error = np.std([0.01, -0.01], ddof=1) * (1 / 2 + 0.25) ** 0.5
    assert selection.shared_optimism == pytest.approx((2, 0.08, 0.03, error))
    assert findings.optimism(study, selection) == (
        "trial 1, the search's best, had 0.9000 there and has 0.8200 on 2 fresh splits and seeds: "
        "+0.0800 (unet, which was not picked from so many, has +0.0300; +0.0500 apart, with a "
        "standard error of 0.0122)"
    )
    weak = selected(study, Known({0.0: [0.55, 0.56, 0.0], 1.0: [0.81, 0.83, 0.88]}))
    assert weak.of(0).values == (0.55, 0.56)
    assert findings.optimism(study, weak).endswith(
        "has +0.0450 over the first 2 repeats, where trial 1 has +0.0800; +0.0350 apart, with a "
        "standard error of 0.0061)"
    )
    selection = selected(study, Known({0.0: [0.95, 0.95], 1.0: [0.81, 0.83]}))
    assert selection.winner == 0 and selection.searched_best.trial == 1
    assert selection.shared_optimism == pytest.approx((2, 0.08, -0.35, error))
    assert findings.optimism(study, selection).endswith(
        "has -0.3500; +0.4300 apart, with a standard error of 0.0122); the winner, chosen on these "
        "splits, has -0.3500"
    )
    selection = selected(
        study_of((0.9, 10, COMPLETE), (0.8, 9, COMPLETE)), Known({0.0: [None], 1.0: [0.7]})
    )
    assert selection.searched_best.trial == 1 and selection.optimism == pytest.approx(0.1)


def test_optimism_where_the_search_s_best_fails() -> None:
    study = study_of((0.9, 10, COMPLETE), (0.89, 9, COMPLETE))
    late = selected(study, Known({0.0: [0.93, 0.92, None], 1.0: [0.7, 0.7, 0.7]}))
    said = findings.optimism(study, late)
    assert "trial 0, the search's best, had 0.9000" in said and "high side" not in said
    at_once = selected(study, Known({0.0: [None], 1.0: [0.7]}))
    said = findings.optimism(study, at_once)
    assert said.startswith("trial 1, the search's best of those that could be trained again, had")


def test_splits_that_are_the_search_s_own_are_not_called_fresh() -> None:
    study = study_of((0.9, 10, COMPLETE))
    selection = selected(study, Known({0.0: [0.8, 0.82]}))
    assert findings.over_repeats(selection) == "2 fresh splits and seeds"
    again = replace(selection, reused=2)
    assert findings.over_repeats(again).startswith("2 splits and seeds, 2 of them on the search's")
    assert "fresh" not in findings.optimism(study, again)


def test_measured_optimism_of_the_search_s_best_is_unbiased_and_the_winner_s_is_not() -> None:
    """Of fifty equal points, whose values are luck alone: the winner had luck twice.

    What holds for all finalists cannot be seen of the winner, who is the one that did not fall.
    """
    generator = np.random.default_rng(0)
    measured, winners, true = [], [], []
    for _ in range(1000):
        best = sorted(generator.standard_normal(50))[-5:]
        study = study_of(*((value, 10, COMPLETE) for value in best))
        luck = generator.standard_normal((5, 5)).tolist()
        selection = selected(study, Known({float(x): luck[x] for x in range(5)}))
        measured.append(selection.optimism)
        winners.append(selection.winners_optimism)
        true.append(best[-1])  # every point's own value is 0
    assert np.mean(measured) == pytest.approx(np.mean(true), rel=0.05)
    assert np.mean(winners) < 0.65 * np.mean(true)


def test_the_search_s_best_is_told_from_its_equals_and_from_those_given_up() -> None:
    study = study_of((0.9, 10, COMPLETE), (0.9, 10, COMPLETE), (0.8, 10, COMPLETE))
    values = {0.0: [0.70, 0.61, 0.65], 1.0: [0.85, 0.80, 0.82], 2.0: [0.89, 0.82, 0.85]}
    said = findings.optimism(study, selected(study, Known(values)))
    assert said == (
        "trial 0, the search's best (one of 2 equals), had 0.9000 there and has 0.6550 on 2 fresh "
        "splits and seeds: +0.2450, on the high side, since it was given up after low repeats; "
        "the winner, chosen on these splits, has -0.0533"
    )
    once = findings.optimism(study, selected(study, Known({x: [0.7] for x in values})))
    assert "on 1 fresh split and seed: +0.2000" in once


def test_as_many_images_behind_on_each_repeat_give_nobody_up() -> None:
    study = study_of((0.9, 10, COMPLETE), (0.88, 10, COMPLETE))
    values = {0.0: [287 / 288, 286 / 287, 1.0], 1.0: [286 / 288, 285 / 287, 1.0]}
    assert len(selected(study, Known(values)).of(1).values) == 2
    assert len(selected(study, Known(values, step=1 / 287)).of(1).values) == 3


def test_as_many_errors_of_folds_of_unequal_size_are_a_tie_and_have_no_interval() -> None:
    """Five errors each, in 287 and 288 images: fewer weights win, not the smaller fold."""
    study = study_of((0.9, 30, COMPLETE), (0.88, 20, COMPLETE), (0.87, 10, COMPLETE))
    sizes = [288, 288, 287, 287, 287]
    errors = {0.0: [1, 2, 0, 1, 1], 1.0: [1, 1, 1, 1, 1], 2.0: [2, 1, 1, 1, 1]}
    values = {
        x: [1 - wrong / size for wrong, size in zip(each, sizes, strict=True)]
        for x, each in errors.items()
    }
    exact = selected(study, Known(values))
    assert exact.winner == 0 and exact.estimate(exact.of(1)).has_interval
    selection = selected(study, Known(values, step=1 / 287))
    assert selection.winner == 1 and not selection.estimate(selection.of(1)).has_interval
    assert selection.estimate(selection.of(0)).has_interval
    assert findings.finalists(study, selection)[1][5] == "all repeats alike"
    assert Selection.from_record(selection.as_record()) == selection


def test_an_interval_stays_among_the_values_that_there_can_be() -> None:
    selection = selected(study_of((0.9, 10, COMPLETE)), Known({0.0: [0.80, 0.99]}))
    found = selection.estimate(selection.of(0))
    assert (found.low, found.high) == (0, 1) and found.mean == pytest.approx(0.895)


def test_the_weak_are_given_up_early_by_a_paired_test() -> None:
    """Trial 1 is 0.2 behind on every repeat, whatever the repeat; trial 2 now and then."""
    study = study_of((0.9, 10, COMPLETE), (0.8, 10, COMPLETE), (0.7, 10, COMPLETE))
    repeats = Known(
        {
            0.0: [0.90, 0.80, 0.85, 0.88],
            1.0: [0.70, 0.61, 0.64, 0.68],
            2.0: [0.85, 0.84, 0.80, 0.87],
        }
    )
    selection = selected(study, repeats)
    assert selection.of(1).given_up == "below the leader after 2 repeats"
    assert selection.of(1).values == (0.70, 0.61)
    assert [each.trial for each in selection.finalists] == [0, 2, 1]
    assert len(repeats.trained) == 10


def test_a_smaller_one_within_a_standard_error_is_named() -> None:
    study = study_of((0.9, 900, COMPLETE), (0.9, 50, COMPLETE), (0.9, 5, COMPLETE))
    values: dict[float, list[float | None]] = {
        0.0: [0.86, 0.80, 0.83],
        1.0: [0.81, 0.84, 0.83],
        2.0: [0.80, 0.75, 0.76],
    }
    selection = selected(study, Known(values))
    assert selection.winner == 0 and selection.simpler == 1


def test_a_finalist_that_fails_cannot_win() -> None:
    study = study_of((0.9, 10, COMPLETE), (0.8, 10, COMPLETE))
    selection = selected(study, Known({0.0: [0.95, None], 1.0: [0.7, 0.7]}))
    assert selection.winner == 1
    assert selection.of(0).given_up == "failed on repeat 2: epoch 1: loss is nan"
    with pytest.raises(InputError, match="every finalist failed; of trial"):
        selected(study, Known({0.0: [None, None], 1.0: [None, None]}))


def test_those_below_a_leader_that_fails_come_back() -> None:
    """From the repeat on that they lack."""
    study = study_of((0.9, 10, COMPLETE), (0.8, 10, COMPLETE), (0.7, 10, COMPLETE))
    repeats = Known(
        {
            0.0: [0.90, 0.80, 0.85, None],
            1.0: [0.70, 0.61, 0.64, 0.68],
            2.0: [0.60, 0.51, 0.54, 0.58],
        }
    )
    selection = selected(study, repeats)
    assert selection.winner == 1 and selection.of(1).values == (0.70, 0.61, 0.64, 0.68)
    assert selection.of(0).given_up == "failed on repeat 4: epoch 1: loss is nan"
    assert len(repeats.trained) == len(set(repeats.trained)) == 12


def test_a_lack_of_memory_decides_nothing() -> None:
    """It is this moment's, and the point may be the best."""
    study = study_of((0.9, 10, COMPLETE), (0.8, 10, COMPLETE))
    repeats = Known({0.0: [0.95, None], 1.0: [0.7, 0.7]}, error=OutOfMemory("out of memory"))
    with pytest.raises(InputError, match="trial 0 on repeat 2: out of memory, .* same command"):
        selected(study, repeats)


def test_the_best_report_model_is_the_one_that_stayed_longest() -> None:
    """The means of those given up are of other repeats: B is the better one where both were."""
    study = study_of((0.95, 10, COMPLETE))
    add(study, 1, 0.9, 10, COMPLETE, report_model="A")
    add(study, 2, 0.8, 10, COMPLETE, report_model="B")
    leader = [0.95, 0.935, 0.75, 0.76, 0.75]
    known = {0.0: leader, 1.0: [0.80, 0.79, 0, 0, 0], 2.0: [0.81, 0.885, 0.66, 0.66, 0]}
    selection = selected(study, Known(known))
    assert (len(selection.of(1).values), len(selection.of(2).values)) == (2, 4)
    assert selection.report_model == 2


def test_the_best_report_model_did_not_fail_where_another_did_not() -> None:
    study = optuna.create_study(direction="maximize")
    add(study, 0, 0.9, 10, COMPLETE)
    add(study, 1, 0.9, 10, COMPLETE, report_model="fails late")
    add(study, 2, 0.8, 10, COMPLETE, report_model="weak")
    known = {0.0: [0.9, 0.9, 0.9], 1.0: [0.9, 0.9, None], 2.0: [0.5, 0.51, 0.5]}
    assert selected(study, Known(known)).report_model == 2


def test_the_best_report_model_is_the_best_of_the_repeats() -> None:
    study = optuna.create_study(direction="maximize")
    add(study, 0, 0.9, 10, COMPLETE, report_model="first")
    add(study, 1, 0.8, 10, COMPLETE, report_model="second")
    selection = selected(study, Known({0.0: [0.7, 0.72], 1.0: [0.8, 0.81]}))
    assert selection.report_model == selection.winner == 1
