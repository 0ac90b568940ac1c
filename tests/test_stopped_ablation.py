"""An ablation of a real small study, stopped, and gone on with."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_session import open_in

from dl4ia.command_line.flag_types import ALL
from dl4ia.errors import InputError
from dl4ia.report.findings import ablation_of, paired_repeats
from dl4ia.search.loop import search
from dl4ia.selection.ablation import Effect, effects_of
from dl4ia.selection.finalists import without_finalists
from dl4ia.selection.repeats import Repeats, kept_repeats
from dl4ia.session import Session
from dl4ia.workflow.ablation import ablation_is_done, run_ablation
from dl4ia.workflow.ahead import Ahead

FLAGS = ("--finalists", "0", "--repeats", "2", "--workers", "1")
MODEL_3 = 3  # a trial, whose point is the report's model 3


def effects_in(session: Session) -> dict[str, Effect]:
    return {each.name: each for each in effects_of(ablation_of(session.study, MODEL_3) or {})}


def test_a_stopped_ablation_shows_what_it_has_and_goes_on(
    tmp_path: Path,
    gland_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    session = open_in(tmp_path / "out", gland_folder, *FLAGS, "--ablate")
    search(session.study, session.objective, MODEL_3 + 1, None, session.turns, lambda trial: None)
    trials = session.study.get_trials()
    selection = without_finalists(session.study, trials[MODEL_3])
    differing = {
        name
        for name, value in trials[MODEL_3].params.items()
        if name in trials[0].params and trials[0].params[name] != value
    }
    assert differing == {"normalization", "schedule"}

    train, trained = Repeats._train, 0

    def stopped(self: Repeats, *words: Any) -> dict[str, Any]:
        nonlocal trained
        if trained == len(differing) + 1:  # of repeat 2 the winner is missing too
            raise KeyboardInterrupt
        trained += 1
        return train(self, *words)

    monkeypatch.setattr(Repeats, "_train", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_ablation(session, selection, Ahead(session))
    assert {name: len(each.differences) for name, each in effects_in(session).items()} == (
        dict.fromkeys(differing, 1)
    )
    assert not ablation_is_done(session, selection)

    monkeypatch.setattr(Repeats, "_train", train)
    (chosen, *_) = sorted(differing)
    arguments = replace(session.arguments, ablate=(chosen, "base_width"))
    one = replace(session, arguments=arguments)
    run_ablation(one, selection, Ahead(one))
    counts = {name: len(each.differences) for name, each in effects_in(session).items()}
    assert counts == dict.fromkeys(differing, 1) | {chosen: 2}  # the others' are not lost
    assert ablation_is_done(one, selection) and not ablation_is_done(session, selection)
    assert "base_width: the winner has baseline's" in capsys.readouterr().out
    known = len(kept_repeats(session.study))

    run_ablation(session, selection, Ahead(session))
    assert ablation_is_done(session, selection)
    assert {len(each.differences) for each in effects_in(session).values()} == {2}
    assert len(kept_repeats(session.study)) == known + len(differing) - 1


def test_what_cannot_be_turned_back_is_said_and_trains_nothing(
    tmp_path: Path, gland_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = open_in(tmp_path / "out", gland_folder, *FLAGS, "--ablate", "weight_decay,dropout")
    search(session.study, session.objective, 1, None, session.turns, lambda trial: None)
    selection = without_finalists(session.study, session.study.get_trials()[0])
    run_ablation(session, selection, Ahead(session))  # of the baseline itself
    said = capsys.readouterr().out
    assert "weight_decay: the winner has none" in said and "dropout: the winner has base" in said
    every = replace(session, arguments=replace(session.arguments, ablate=ALL))
    run_ablation(every, selection, Ahead(every))
    assert ablation_is_done(session, selection) and ablation_is_done(every, selection)
    assert not kept_repeats(session.study)


def test_a_winner_that_fails_is_told_and_earlier_repeats_are_kept(
    tmp_path: Path, gland_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_in(tmp_path / "out", gland_folder, *FLAGS, "--ablate", "schedule")
    search(session.study, session.objective, MODEL_3 + 1, None, session.turns, lambda trial: None)
    selection = without_finalists(session.study, session.study.get_trials()[MODEL_3])
    train = Repeats._train

    def failing(self: Repeats, point: Any, number: int, *words: Any) -> dict[str, Any]:
        kept = train(self, point, number, *words)
        is_winner = point["schedule"] == "exponential"
        return kept | ({"failure": "loss is nan"} if is_winner and number == 3 else {})

    monkeypatch.setattr(Repeats, "_train", failing)
    for _ in range(2):  # and again, from what is kept
        with pytest.raises(InputError, match=r"trial 3 fails on fresh splits \(loss is nan\)"):
            run_ablation(session, selection, Ahead(session))
        (effect,) = effects_in(session).values()
        assert effect.name == "schedule" and len(effect.differences) == 1


def test_a_choice_that_a_winner_like_others_cannot_turn_back_is_said(
    tmp_path: Path, gland_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a winner that has other choices to turn back, none of which was asked for."""
    asked = "weight_decay,base_width"
    session = open_in(tmp_path / "out", gland_folder, *FLAGS, "--ablate", asked)
    search(session.study, session.objective, MODEL_3 + 1, None, session.turns, lambda trial: None)
    selection = without_finalists(session.study, session.study.get_trials()[MODEL_3])
    assert ablation_is_done(session, selection)
    run_ablation(session, selection, Ahead(session))
    said = capsys.readouterr().out
    assert "--ablate weight_decay: the winner has none" in said
    assert "--ablate base_width: the winner has baseline's" in said


def test_repeats_by_which_the_winner_was_chosen_since_are_told(
    tmp_path: Path, gland_folder: Path
) -> None:
    """An ablation over repeats 3 and 4, and then finalists over the first three."""
    session = open_in(tmp_path / "out", gland_folder, *FLAGS, "--ablate", "schedule")
    search(session.study, session.objective, MODEL_3 + 1, None, session.turns, lambda trial: None)
    selection = without_finalists(session.study, session.study.get_trials()[MODEL_3])
    run_ablation(session, selection, Ahead(session))
    record = ablation_of(session.study, MODEL_3)
    assert record and paired_repeats(record) == "2 paired splits and seeds"
    session.study.set_user_attr("selection", {"repeats": 3})
    record = ablation_of(session.study, MODEL_3)
    assert record and "by 1 of which the winner was chosen since" in paired_repeats(record)
