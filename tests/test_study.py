"""A study is opened, gone on with, or refused."""

from dataclasses import asdict, replace
from types import SimpleNamespace

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState
from small_search import IDENTITY, REFERENCE, REPORT, SEARCHED, begin, run, storage

from dl4ia.errors import InputError
from dl4ia.search.halving import REDUCTION, Halving
from dl4ia.search.study import Identity, open_study

__all__ = ["storage"]  # a fixture


def test_named_points_come_first_and_the_count_goes_on(
    storage: optuna.storages.RDBStorage,
) -> None:
    study = begin(storage)
    assert run(study, 3) == [0, 1, 2]
    first, second, third = study.trials
    assert first.params == REPORT["first"] and first.user_attrs["report_model"] == "first"
    assert second.params == REFERENCE["second"] and "report_model" not in second.user_attrs
    assert "point" not in third.user_attrs
    assert run(begin(storage), 5) == [3, 4]
    assert run(begin(storage), 5) == []


def test_a_resumed_study_does_not_repeat_its_random_stream(
    storage: optuna.storages.RDBStorage,
) -> None:
    for trials in range(3, 11):  # one trial a start: the worst case
        run(begin(storage), trials)
    rates = [trial.params["rate"] for trial in begin(storage).trials[2:]]
    assert len(set(rates)) == len(rates) == 8


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"data_fingerprint": "other"}, "data_fingerprint is 'd' there and 'other' here"),
        ({"split_fingerprint": "other"}, "split_fingerprint"),
        ({"space_fingerprint": "other"}, "space_fingerprint"),
        ({"metric": "iou"}, "metric"),
        ({"epochs": 10, "folds": 5}, "epochs is 9 there and 10 here; folds is 1 there and 5 here"),
        ({"preparation": {"image_shift": 0.5}}, "preparation"),
        ({"split_by": "patient"}, "split_by is 'image' there and 'patient' here"),
    ],
)
def test_another_study_of_that_name_is_refused(
    storage: optuna.storages.RDBStorage, changed: dict[str, object], named: str
) -> None:
    run(begin(storage), 1)
    with pytest.raises(InputError, match="'study' is another one") as refused:
        begin(storage, replace(IDENTITY, **changed))  # type: ignore[arg-type]
    assert named in str(refused.value)
    assert len(begin(storage).trials) == 2


RUNG = 3


def reach_rung(study: optuna.Study, values: list[float], **attributes: str) -> list[bool]:
    """Trials that come to the rung one after the other; which of them are to end there."""
    pruned = []
    for value in values:
        study.enqueue_trial({}, user_attrs=attributes)
        trial = study.ask()
        for epoch in range(1, RUNG + 1):
            trial.report(value if epoch == RUNG else 0.0, epoch)
        pruned.append(trial.should_prune())
        study.tell(trial, value)
    return pruned


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=30))
def test_successive_halving_decides_as_optunas_does(values: list[int]) -> None:
    decided = []
    for pruner in (
        Halving(RUNG),
        optuna.pruners.SuccessiveHalvingPruner(min_resource=RUNG, reduction_factor=REDUCTION),
    ):
        study = optuna.create_study(direction="maximize", pruner=pruner)
        decided.append(reach_rung(study, [value / 10 for value in values]))
    assert decided[0] == decided[1]


def test_a_trial_does_not_compete_with_the_one_that_it_replaces(
    storage: optuna.storages.RDBStorage,
) -> None:
    study = optuna.create_study(storage=storage, direction="maximize", pruner=Halving(RUNG))
    cut_off = study.ask()
    for epoch in range(1, RUNG + 3):
        cut_off.report(0.8, epoch)
    study.tell(cut_off, state=TrialState.FAIL)
    again = 0.8 - 1e-7  # as a GPU repeats it
    assert reach_rung(study, [again, 0.7, again - 1e-7]) == [False, True, True]


def test_named_points_do_not_set_the_pace() -> None:
    study = optuna.create_study(direction="maximize", pruner=Halving(RUNG))
    reach_rung(study, [0.9], point="modern_unet")
    assert reach_rung(study, [0.5, 0.6, 0.5]) == [False, False, True]


def test_a_study_from_before_there_was_split_by_goes_on(
    storage: optuna.storages.RDBStorage,
) -> None:
    study = begin(storage)
    recorded = study.user_attrs["identity"]
    del recorded["split_by"]
    study.set_user_attr("identity", recorded)
    run(study, 1)
    assert len(begin(storage).trials) == 2
    with pytest.raises(InputError, match="another one: split_by is 'image' there and 'patient' h"):
        begin(storage, replace(IDENTITY, split_by="patient"))


def test_what_another_version_recorded_besides_is_passed_over() -> None:
    assert Identity.recorded(asdict(IDENTITY) | {"later": 1}) == IDENTITY


def test_a_study_that_read_colours_as_grey_is_told_how_to_go_on(
    storage: optuna.storages.RDBStorage,
) -> None:
    before = replace(IDENTITY, task="classification", preparation={"classes": "a, b"})
    begin(storage, before)
    said = "colours were read as grey there, as --channels grey does"
    with pytest.raises(InputError, match=said):
        begin(storage, replace(before, preparation={"classes": "a, b", "channels": "rgb"}))


def test_a_point_outside_the_space_is_refused(storage: optuna.storages.RDBStorage) -> None:
    with pytest.raises(ValueError, match=r"bad: rate=2\.0 is outside"):
        bad = SimpleNamespace(
            **vars(SEARCHED) | {"REPORT_MODELS": {"bad": {"kind": "a", "rate": 2.0}}}
        )
        open_study(storage, "study", IDENTITY, bad)
