"""`--within`: a study of a part of a search space."""

import json
import sys
from pathlib import Path

import optuna
import pytest
from commands import run_command
from conftest import ROOT, write_gland_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from test_session import open_in

from dl4ia.errors import InputError
from dl4ia.search.narrowing import NONE_OF_THE_REPORTS, narrowed, spelled
from dl4ia.search_space import (
    Choice,
    Domain,
    SpaceModule,
    Value,
    check_point,
    fingerprint,
    sample,
)
from search_spaces import classification, segmentation

REPORTS = list(segmentation.REPORT_MODELS)
REFERENCES = list(segmentation.REFERENCE_MODELS)


def part_of(*within: str) -> SpaceModule:
    """Of the gland space."""
    return narrowed(segmentation, [(name, text) for name, text in (w.split("=") for w in within)])


@pytest.mark.parametrize(
    ("within", "expected"),
    [
        ("architecture=unet", ("unet",)),
        ("architecture=resnet,FCN", ("fcn", "resnet")),  # in the space's order
        ("residual=false,True", (True, False)),
        ("averaging=0,0.1", (0.0, 0.1)),
        ("batch_size=4.0,full", (4, "full")),
        ("depth=3", (3, 3)),
        ("depth=2..4", (2, 4)),
        ("learning_rate=1e-3..0.01", (0.001, 0.01)),
        ("dropout=-0..0", (0.0, 0.0)),
    ],
)
def test_some_values(within: str, expected: tuple[Value, ...]) -> None:
    name = within.partition("=")[0]
    before, domain = segmentation.SPACE[name], part_of(within).SPACE[name]
    values = domain.values if isinstance(domain, Choice) else (domain.low, domain.high)
    assert values == expected
    assert [repr(value) for value in values] == [repr(value) for value in expected]
    assert (type(domain), domain.doc, domain.when) == (type(before), before.doc, before.when)


@pytest.mark.parametrize(
    ("within", "said"),
    [
        (["width=8"], "--within width=8: no hyperparameter of this study; expected some of archit"),
        (["depth=2", "depth=3"], "--within depth=3: depth is given twice"),
        (["architecture=unett"], "expected some of fcn, encoder_decoder, unet, resnet, each once"),
        (["architecture=unet,unet"], "each once, with commas between"),
        (["architecture=unet,"], "each once, with commas between"),
        (["base_width=8.5"], "expected some of 8, 16, 24, 32"),
        (["residual=1"], "expected some of True, False"),
        (["depth=6"], "expected a whole number, or two as in LOW..HIGH, within 2 to 5"),
        (["depth=2.5"], "expected a whole number"),
        (["depth=3..2"], "expected a whole number"),
        (["depth=2..3..4"], "expected a whole number"),
        (["dropout=0.1,0.2"], "expected a number, or two as in LOW..HIGH, within 0 to 0.5"),
        (["dropout=-0.1"], "expected a number"),
        (["dropout=nan"], "expected a number"),
        (["dropout=..0.1"], "expected a number"),
        (["learning_rate=0.001..1e400"], "expected a number"),
        (["architecture=unet", "residual=true"], "applies where architecture is resnet, which"),
        (["depth=4", "base_width=32"], "depth applies where base_width is 8 or 16 or 24, which"),
        (
            ["architecture=fcn", "batch_size=8", "report_rotations=true"],
            "report_rotations applies where batch_size is full, which --within leaves out",
        ),
    ],
)
def test_what_is_refused(within: list[str], said: str) -> None:
    with pytest.raises(InputError) as refused:
        part_of(*within)
    assert said in str(refused.value) and str(refused.value).startswith("--within ")
    assert "\n" not in str(refused.value)


def test_named_points_outside_are_left_out() -> None:
    assert part_of() is segmentation
    unet = part_of("architecture=unet")
    assert (list(unet.REPORT_MODELS), list(unet.REFERENCE_MODELS)) == (["unet"], REFERENCES)
    assert unet.REPORT_NOTE.startswith(segmentation.REPORT_NOTE)
    assert unet.REPORT_NOTE.endswith(
        "Of the report's models --within leaves out baseline, model_1, model_2, model_3, model_4, "
        "model_5, resnet."
    )
    small = part_of("architecture=unet", "base_width=16")
    assert (small.REPORT_MODELS, list(small.REFERENCE_MODELS)) == ({}, ["modern_unet"])
    assert small.REPORT_NOTE == NONE_OF_THE_REPORTS
    all_inside = part_of("learning_rate=0.003..0.01")
    assert list(all_inside.REPORT_MODELS) == REPORTS
    assert all_inside.REPORT_NOTE == segmentation.REPORT_NOTE


def test_what_applies_nowhere_is_not_searched() -> None:
    gone = segmentation.SPACE.keys() - part_of("architecture=unet").SPACE.keys()
    assert gone == {"residual", "report_rotations"}
    assert str(part_of("depth=4").SPACE["depth"]) == "4"
    assert str(part_of("learning_rate=0.001").SPACE["learning_rate"]) == "0.001"


def test_the_same_part_is_the_same_study_however_it_is_written() -> None:
    one = part_of("base_width=8,16", "dropout=0.0", "depth=2..5")
    other = part_of("dropout=0e3", "base_width=16,8")
    assert fingerprint(one.SPACE) == fingerprint(other.SPACE) != fingerprint(segmentation.SPACE)
    assert (
        spelled(segmentation, one) == spelled(segmentation, other) == "base_width=8,16 dropout=0.0"
    )
    assert spelled(segmentation, part_of("depth=2..5")) == ""


@st.composite
def texts(draw: st.DrawFn, domain: Domain) -> str:
    """Some of its values."""
    if isinstance(domain, Choice):
        some = st.lists(st.sampled_from(domain.values), min_size=1, unique_by=str)
        return ",".join(map(str, draw(some)))
    number = st.floats if isinstance(domain.low, float) else st.integers
    ends = st.lists(number(domain.low, domain.high), min_size=1, max_size=2)  # type: ignore[operator]
    return "..".join(map(str, sorted(draw(ends))))


@pytest.mark.parametrize("searched", [segmentation, classification], ids=["glands", "digits"])
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_any_part_is_inside_the_whole(searched: SpaceModule, data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(list(searched.SPACE)), unique=True, max_size=4))
    within = [(name, data.draw(texts(searched.SPACE[name]))) for name in names]
    try:
        part = narrowed(searched, within)
    except InputError as error:
        assert "which --within leaves out" in str(error)
        return
    again = narrowed(searched, [tuple(w.split("=")) for w in spelled(searched, part).split()])  # type: ignore[misc]
    assert again.SPACE == part.SPACE
    sampler = optuna.samplers.RandomSampler(seed=data.draw(st.integers(0, 2**31)))
    point = sample(part.SPACE, optuna.create_study(sampler=sampler).ask())
    check_point(part.SPACE, point, "drawn")
    check_point(searched.SPACE, point, "drawn")


def test_a_study_goes_on_in_the_part_it_began_with(tmp_path: Path, gland_folder: Path) -> None:
    flags = ["--study-name", "s", "--within"]
    session = open_in(tmp_path, gland_folder, *flags, "architecture=unet", "base_width=8,32")
    waiting = [trial.user_attrs["point"] for trial in session.study.get_trials(deepcopy=False)]
    assert waiting == ["unet"]
    same = open_in(
        tmp_path, gland_folder, *flags, "base_width=32,8", "--within", "architecture=unet"
    )
    assert same.identity == session.identity
    told = "within is 'architecture=unet base_width=8,32' there and '' here"
    with pytest.raises(InputError, match=told):
        open_in(tmp_path, gland_folder, "--study-name", "s")
    points = tmp_path / "points.json"
    points.write_text(json.dumps(segmentation.REPORT_MODELS["baseline"]))
    said = (
        r"points 1: --within leaves out architecture='fcn', report_rotations=False; expected points"
    )
    part = ["--within", "architecture=unet"]
    with pytest.raises(InputError, match=said):
        open_in(tmp_path, gland_folder, "--points", str(points), *part)
    points.write_text('{"architecture": "fcn"}')
    with pytest.raises(InputError, match=r"base_width is missing; expected `8`, [^;]*$"):
        open_in(tmp_path, gland_folder, "--points", str(points), *part)


def test_a_whole_study_of_a_part(tmp_path: Path) -> None:
    """Of none of the report's models; what a choice buys is asked of values left out, too."""
    write_gland_folder(tmp_path / "Tiny Glands")
    part = ["architecture=unet", "base_width=8", "depth=2..3", "dropout=0", "batch_size=4,8"]
    words = [sys.executable, str(ROOT / "studies" / "segmentation.py"), "--data", "Tiny Glands",
             "--trials", "10", "--epochs", "1", "--retraining-epochs", "1", "--finalists", "2",
             "--repeats", "2", "--seeds", "2", "--workers", "1",
             "--ablate", "architecture,dropout", "--within", *part]  # fmt: skip
    ended = run_command(words, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "--ablate dropout: the winner has baseline's" in ended.stdout
    assert NONE_OF_THE_REPORTS in " ".join(ended.stdout.split())
    study = optuna.load_study(
        study_name="segmentation-tiny-glands", storage=f"sqlite:///{tmp_path}/mlruns/optuna.db"
    )
    assert len(study.trials) == 10
    for trial in study.trials:
        check_point(part_of(*part).SPACE, trial.params, str(trial.number))
        assert "point" not in trial.user_attrs
    assert (
        study.user_attrs["identity"]["within"]
        == "architecture=unet base_width=8 depth=2..3 dropout=0.0 batch_size=4,8"
    )
    (effect,) = study.user_attrs["ablation"]["effects"]
    assert (effect["name"], effect["chosen"], effect["turned_back"]) == (
        "architecture", "unet", "fcn",
    )  # fmt: skip
    again = run_command(words, tmp_path)
    assert again.returncode == 0 and NONE_OF_THE_REPORTS in " ".join(again.stdout.split())
