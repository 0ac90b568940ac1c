import datetime
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from dl4ia.report.findings import (
    effect_line,
    effects,
    leaderboard,
    nothing_turned_back,
    paired_repeats,
    reports_best,
    several_ways,
    several_ways_of,
)
from dl4ia.report.study_page import _choices, random_values
from dl4ia.report.terminal import _runs_at, trial_line, unfinished
from dl4ia.selection.ablation import effects_of
from dl4ia.selection.finalists import Selection
from dl4ia.selection.repeats import KEPT
from dl4ia.text import duration, table


def trial(state: TrialState, value: float | None, **attributes: object) -> FrozenTrial:
    made = create_trial(
        state=state,
        value=value,
        params={"rate": 0.5},
        distributions={"rate": FloatDistribution(0, 1)},
        intermediate_values={1: 0.4, 2: 0.5},
        user_attrs={"weights": 1234, "history": {"val_dice": [0.1, 0.2]}, **attributes},
    )
    made.datetime_start = datetime.datetime(2026, 1, 1)
    made.datetime_complete = datetime.datetime(2026, 1, 1, 0, 0, 7)
    return made


def test_a_line_for_each_way_to_end() -> None:
    completed = trial_line(trial(TrialState.COMPLETE, 0.61234, point="unet"), 3, 50, 0.7, 3600)
    assert "  3/50  0.6123  unet" in completed
    assert "2 epochs     7 s  complete  [best 0.7000, 60 min left]" in completed
    pruned = trial_line(trial(TrialState.PRUNED, 0.5), 3, 50, None, 10)
    assert "pruned at 0.5000  [best –, 10 s left]" in pruned
    failed = trial(TrialState.FAIL, None, failure="epoch 1: train_loss is nan")
    assert "failed: epoch 1: train_loss is nan" in trial_line(failed, 3, 50, 0.7, 10)


def test_the_leaderboard_has_the_best_and_every_report_model() -> None:
    study = optuna.create_study(direction="maximize")
    for number in range(20):
        study.add_trial(trial(TrialState.COMPLETE, 0.9 - number / 100))
    study.add_trial(trial(TrialState.COMPLETE, 0.1, point="baseline", report_model="baseline"))
    study.add_trial(trial(TrialState.PRUNED, 0.99))
    study.add_trial(trial(TrialState.FAIL, None, report_model="unet", failure="out of memory"))
    lines = table(leaderboard(study, "dice", ["baseline", "unet", "resnet"])).splitlines()
    assert len(lines) == 1 + 10 + 1 + 2
    assert lines[1].split()[:3] == ["1", "0", "0.9000"]
    assert lines[11].split()[0] == "21" and lines[11].endswith("baseline (report)")
    assert lines[12].endswith("unet (report), failed: out of memory")
    assert lines[13].endswith("resnet (report), not run")
    assert "1,234" in lines[1]


def test_where_every_run_is_to_be_seen() -> None:
    """A server shows its own page, and `mlflow ui` would not take its address."""
    assert _runs_at("http://me:secret@tracking:5000") == "http://me:***@tracking:5000"
    assert _runs_at("sqlite:///a b.db") == "mlflow ui --backend-store-uri 'sqlite:///a b.db'"


def test_when_the_time_is_over() -> None:
    study = optuna.create_study(direction="maximize")
    assert unfinished(study, "dice", 9).endswith("\n\nThe same command goes on.")
    study.add_trial(trial(TrialState.COMPLETE, 0.5))
    said = "The same command goes on; --trials 1 ends with the best of these."
    assert unfinished(study, "dice", 8).endswith(said)


def test_the_report_s_best_is_that_of_now_or_of_the_test() -> None:
    """A study may go on with other finalists after its winner was scored."""
    selection = Selection((), 0, None, 4, 5, 0.25)
    study: Any = SimpleNamespace(user_attrs={"identity": {}})
    assert reports_best(study, selection, {"compared_with": 4}) == "the report's best"
    since = reports_best(study, selection, {"compared_with": 1})
    assert since == "the report's best when the test set opened"


def test_of_a_part_of_the_space_nobody_knows_the_report_s_best() -> None:
    selection = Selection((), 0, None, 4, 5, 0.25)
    study: Any = SimpleNamespace(user_attrs={"identity": {"within": "architecture=unet"}})
    said = reports_best(study, selection, {"compared_with": 4})
    assert said == "the report's best inside what was searched"


def test_what_the_search_could_not_choose_has_no_importance() -> None:
    study = optuna.create_study(direction="maximize")
    for number in range(12):
        trial = study.ask()
        rate = trial.suggest_float("rate", 0, 1)
        fixed = trial.suggest_float("one_value", 2, 2)
        trial.set_user_attr("weights", 1)
        study.tell(trial, rate + fixed + number * 1e-6)
    page = "".join(_choices(study, "dice"))
    assert "rate" in page and "one_value" not in page


def test_an_ablation_says_what_its_repeats_are() -> None:
    effect = {"name": "depth", "chosen": 3, "turned_back": 2, "differences": [0.1, 0.3]}
    record = {"repeats": 2, "held_out": 0.25, "baseline": "unet", "effects": [effect]}
    assert paired_repeats(record) == "2 paired splits and seeds"  # of an older study
    said = paired_repeats(record | {"reused": 2})
    assert said.startswith("2 paired splits and seeds (2 on earlier splits, since")


def test_repeats_of_several_commits_are_told() -> None:
    """Differences between them may be of the code."""
    study = optuna.create_study()
    made = {"commit": "a" * 40, "dirty": "False", "device": "cpu", "precision": "float32"}

    def keep(key: str, repeat: int, **changed: str) -> None:
        kept = {"repeat": repeat, "environment": made | changed}
        study._storage.set_study_system_attr(study._study_id, f"{KEPT}{repeat} of {key}", kept)

    keep("one", 0)
    keep("two", 0, processor="another")
    keep("one", 2, commit="b" * 40)
    assert several_ways(study, range(2)) == ""
    keep("two", 1, dirty="True")
    said = several_ways(study, range(2))
    assert (
        "(commit aaaaaaaaaa (with uncommitted changes), cpu, float32; commit aaaaaaaaaa, " in said
    )
    assert "b" * 10 not in said
    ablation = {"first_repeat": 1, "repeats": 2}
    assert "commit bbbbbbbbbb" in several_ways_of(study, ablation)
    assert several_ways_of(study, ablation | {"first_repeat": 2}) == ""


def test_a_stopped_ablation_says_over_how_many_repeats() -> None:
    first = {"name": "depth", "chosen": 3, "turned_back": 2, "differences": [0.1, 0.3]}
    second = first | {"name": "width", "differences": [0.1]}
    failed = first | {"name": "loss", "differences": [], "failure": "epoch 1: loss is nan"}
    record = {"repeats": 3, "held_out": 0.25, "baseline": "unet",
              "effects": [first, second, failed]}  # fmt: skip
    assert paired_repeats(record) == "up to 2 of 3 paired splits and seeds"
    (_, *rows) = effects(record)
    assert [row[3] for row in rows] == ["2", "1"]
    assert effect_line(effects_of(record)[1], record).endswith("width: 3 → 2  (1 of 3 repeats)")
    assert "of 2 repeats" not in effect_line(effects_of(record)[0], record | {"repeats": 2})


def test_an_ablation_of_the_baseline_itself_says_so() -> None:
    assert not nothing_turned_back({"baseline": "unet", "effects": [{}]})
    assert "all of unet's choices" in nothing_turned_back({"baseline": "unet", "effects": []})


def test_a_budget_buys_failures_too() -> None:
    """Of eight random trials that finished, and those that failed among them."""
    study = optuna.create_study(direction="maximize")
    study.add_trial(trial(TrialState.COMPLETE, 0.9, point="unet"))
    for number in range(9):
        study.add_trial(trial(TrialState.FAIL, None, failure="epoch 1: train_loss is nan"))
        study.add_trial(trial(TrialState.FAIL, None))  # interrupted
        pruned = number % 2 == 0
        study.add_trial(
            trial(TrialState.PRUNED if pruned else TrialState.COMPLETE, None if pruned else 0.2)
        )
    assert random_values(study, "dice") == [0.0, 0.2] * 8


def test_columns_align() -> None:
    lines = table([("a", "b"), ("1", "x"), ("100", "yy")]).splitlines()
    assert lines == ["    a  b", "    1  x", "  100  yy"]


def test_durations() -> None:
    assert [duration(s) for s in (5, 300, 4000, 8000)] == ["5 s", "5 min", "67 min", "2 h 13 min"]
