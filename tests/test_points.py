"""`--points`: what is read from a file, and what is not."""

import json
from pathlib import Path

import optuna
import pytest
from small_search import IDENTITY, REFERENCE, REPORT, SEARCHED, SPACE, run, storage

from dl4ia.errors import InputError
from dl4ia.search.points import read_points
from dl4ia.search.study import check_points, enqueue_points, open_study
from dl4ia.search_space import Point, choice

__all__ = ["storage"]  # a fixture

GOOD = {"kind": "b", "rate": 0.75}


def written(folder: Path, held: object) -> Path:
    file = folder / "known.json"
    file.write_text(json.dumps(held), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    "held, labels",
    [
        (GOOD, ["known 1"]),
        ([GOOD, GOOD | {"rate": 0.5}], ["known 1", "known 2"]),
        ({"study": "s-1", "winner": 4, "point": GOOD}, ["winner of s-1"]),
        ([{"point": GOOD}], ["known 1"]),
        ([{"study": "s", "point": GOOD}] * 2, ["winner of s", "winner of s 2"]),
    ],
)
def test_points_are_read(held: object, labels: list[str], tmp_path: Path) -> None:
    points = read_points(written(tmp_path, held), SPACE)
    assert list(points) == labels and points[labels[0]] == GOOD


def test_a_whole_number_is_a_real_where_one_is_expected(tmp_path: Path) -> None:
    space = SPACE | {"mean": choice(0.0, 0.9, doc="a real"), "depth": choice(1, 2, doc="a number")}
    file = written(tmp_path, GOOD | {"rate": 1, "mean": 0, "depth": 1})
    (point,) = read_points(file, space).values()
    assert point == GOOD | {"rate": 1.0, "mean": 0.0, "depth": 1}
    assert [type(point[name]) for name in ("rate", "mean", "depth")] == [float, float, int]


@pytest.mark.parametrize(
    "held, said",
    [
        ([], "empty list"),
        ({}, "expected JSON"),
        (3, "expected JSON"),
        (["a"], "expected JSON"),
        (GOOD | {"rate": 2.0}, "rate=2.0 is outside 0 to 1"),
        (GOOD | {"rate": "0.5"}, "rate='0.5' is outside 0 to 1"),
        (GOOD | {"rate": 2}, "rate=2 is outside 0 to 1"),
        (GOOD | {"rate": 10**400}, "is outside 0 to 1"),
        (GOOD | {"rate": True}, "rate=True is outside 0 to 1"),
        (GOOD | {"rate": float("nan")}, "rate=nan is outside"),
        ([GOOD, {"kind": "a"}], "known 2: rate is missing"),
        (GOOD | {"depth": 4}, "depth is not in the space; known: kind, rate"),
        (GOOD | {"kind": ["a"]}, "kind=['a'] is outside"),
    ],
)
def test_what_is_no_point_is_refused(held: object, said: str, tmp_path: Path) -> None:
    file = written(tmp_path, held)
    with pytest.raises(InputError) as refused:
        read_points(file, SPACE)
    assert str(refused.value).startswith(f"--points {file}: ") and said in str(refused.value)


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "known.json"
    for content in (b"{", b"\xff\xfe", b"[" * 100_000):
        file.write_bytes(content)
        with pytest.raises(InputError, match="expected JSON"):
            read_points(file, SPACE)
    with pytest.raises(InputError, match="cannot be read"):
        read_points(tmp_path / "none.json", SPACE)
    with pytest.raises(InputError, match="cannot be read"):
        read_points(tmp_path, SPACE)


def test_points_follow_the_named_ones_once(storage: optuna.storages.RDBStorage) -> None:
    """Also where their label has changed, or the search has come upon them."""

    def opened(points: dict[str, Point], trials: int) -> optuna.Study:
        check_points(str(storage.url), "study", SEARCHED, points, trials)
        study = open_study(storage, "study", IDENTITY, SEARCHED)
        enqueue_points(study, points)
        return study

    for label in ("known 1", "known 1", "renamed 1"):
        study = opened({label: GOOD, f"{label} again": GOOD, "first again": REPORT["first"]}, 4)
    assert run(study, 4) == [0, 1, 2, 3]
    found = [trial.params for trial in study.trials]
    assert found[:3] == [REPORT["first"], REFERENCE["second"], GOOD]
    assert study.trials[2].user_attrs["point"] == "known 1"
    assert "report_model" not in study.trials[2].user_attrs
    assert "point" not in study.trials[3].user_attrs
    study = opened({"known 1": GOOD | {"rate": 0.125}, "searched": found[3]}, 6)
    assert run(study, 6) == [4, 5]
    assert study.trials[4].params["rate"] == 0.125 and "point" not in study.trials[5].user_attrs


def test_points_that_would_never_run_are_refused(storage: optuna.storages.RDBStorage) -> None:
    def check(points: dict[str, Point], trials: int) -> None:
        check_points(str(storage.url), "study", SEARCHED, points, trials)

    for is_begun in (False, True):
        if is_begun:
            study = open_study(storage, "study", IDENTITY, SEARCHED)
        with pytest.raises(InputError, match="1 new ones after 2 trials .* at least 3"):
            check({"known 1": GOOD}, 2)
        check({"known 1": GOOD}, 3)
        check({"first again": REPORT["first"]}, 2)
        assert len(optuna.get_all_study_names(storage)) == is_begun
    assert run(study, 3) == [0, 1, 2]
    with pytest.raises(InputError, match="1 new ones after 3 trials .* at least 4"):
        check({"known 1": GOOD}, 3)
    check({"first again": REPORT["first"]}, 3)
    enqueue_points(study, {"first again": REPORT["first"]})
    assert len(study.trials) == 3
