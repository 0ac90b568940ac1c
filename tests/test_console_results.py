"""`dl4ia results`, asked of real studies."""

import csv
import json
import shutil
from datetime import datetime
from pathlib import Path

import optuna
import pytest
from conftest import dl4ia, run_study, write_gland_folder
from optuna.trial import TrialState

from dl4ia.console.results_copy import check_copy, write_copy
from dl4ia.search.trials import history_of
from dl4ia.selection.repeats import kept_repeats

GLANDS, DIGITS = "segmentation-tiny-glands", "classification-three-digits"


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def of(folder: Path, name: str) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/mlruns/optuna.db")


@pytest.fixture(scope="module")
def written(gland_study: Path, digit_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both studies' results, and a README with their table."""
    folder = tmp_path_factory.mktemp("results")
    readme = folder / "README.md"
    readme.write_text("# Title\n\n<!-- results: begin -->\nold\n<!-- results: end -->\n\nMore.\n")
    for place, name in ((gland_study, GLANDS), (digit_study, DIGITS)):
        ended = dl4ia(place, "results", name, "--to", str(folder), "--readme", str(readme))
        assert ended.returncode == 0, ended.stderr
        assert str(folder / name / "README.md") in ended.stdout and str(readme) in ended.stdout
    return folder


@pytest.mark.parametrize("name", [GLANDS, DIGITS])
def test_the_files_are_the_study(
    name: str, written: Path, gland_study: Path, digit_study: Path
) -> None:
    study = of(gland_study if name == GLANDS else digit_study, name)
    winner = study.user_attrs["winner"]
    trials = rows(written / name / "trials.csv")
    assert [int(row["trial"]) for row in trials] == [trial.number for trial in study.trials]
    for row, trial in zip(trials, study.trials, strict=True):
        assert row["state"] == trial.state.name.lower()
        if trial.values:
            assert float(row["value"]) == pytest.approx(trial.value, abs=1e-5)
            assert int(row["epochs"]) == len(history_of(trial)["seconds"])
        for hyperparameter, value in trial.params.items():
            assert type(value) is not int or row[hyperparameter] == str(value)
            assert row[hyperparameter] == str(value) or float(row[hyperparameter]) == pytest.approx(
                value, rel=1e-5
            )
    test = {row["metric"]: row for row in rows(written / name / "test.csv")}
    metric = study.user_attrs["identity"]["metric"]
    scores = winner["metrics"]
    assert float(test[metric]["mean"]) == pytest.approx(scores[f"test_{metric}"], abs=1e-5)
    assert float(test[metric]["seed_0"]) == pytest.approx(scores[f"test_{metric}"], abs=1e-5)
    finalists = rows(written / name / "finalists.csv")
    selection = study.user_attrs["selection"]
    assert [int(row["trial"]) for row in finalists] == [
        each["trial"] for each in selection["finalists"]
    ]
    assert float(finalists[0]["repeat_2"]) == pytest.approx(
        selection["finalists"][0]["values"][1], abs=1e-5
    )
    record = json.loads((written / name / "study.json").read_text())
    assert record["scores"] == scores and record["point"] == winner["point"]
    assert record["command"] == winner["command"] and record["last_command"] is None
    made = [datetime.fromisoformat(each["end"]) for each in (*kept_repeats(study).values(), winner)]
    assert record["end"] == max(made).isoformat(timespec="seconds")
    assert record["command"].startswith("python ") and "--trials 10 " in record["command"]
    assert record["machine"]["processor"] and record["machine"]["commit"]
    page = (written / name / "README.md").read_text()
    assert f"    {record['command']}\n" in page
    assert "](study.png)" in page and (written / name / "study.png").stat().st_size > 10_000
    assert f"{scores[f'test_{metric}']:.4f}" in page
    assert "| ensemble" not in page
    assert ("| mean over flips and turns" in page) == (name == GLANDS)
    assert all(row["seed"].isdigit() and row["weights"].isdigit() for row in trials)
    assert not (written / name / "ablation.csv").exists() and "ablation.csv" not in page


def test_the_readme_has_a_table_of_all_studies(written: Path) -> None:
    text = (written / "README.md").read_text()
    before, _, rest = text.partition("<!-- results: begin -->")
    table, _, after = rest.partition("<!-- results: end -->")
    assert before == "# Title\n\n" and after == "\n\nMore.\n" and "old" not in table
    lines = table.strip().splitlines()
    assert len(lines) == 2 + 1 + 2  # digits: accuracy; glands: Dice, mean and pooled
    assert "three" in lines[2] and "accuracy" in lines[2] and "pooled" in lines[4]


def test_written_again_nothing_old_is_left(written: Path, gland_study: Path) -> None:
    old = written / GLANDS / "ablation.csv"
    old.write_text("of an earlier winner")
    before = (written / GLANDS / "README.md").read_text()
    assert dl4ia(gland_study, "results", GLANDS, "--to", str(written)).returncode == 0
    assert not old.exists() and (written / GLANDS / "README.md").read_text() == before


def test_a_study_whose_test_set_stays_shut_is_taken_up_from_its_results(
    written: Path, gland_study: Path, tmp_path: Path
) -> None:
    """With a point like the other study's winner among its first; scored at last, elsewhere."""
    known = json.loads((written / GLANDS / "study.json").read_text())
    known["point"]["learning_rate"] = 0.00321
    (tmp_path / "known.json").write_text(json.dumps(known))
    write_gland_folder(tmp_path / "Tiny Glands")
    flags = ("--data", "Tiny Glands", "--image-shift", "0.5", "--ablate", "--finalists", "2",
             "--trials", "11", "--points", "known.json")  # fmt: skip
    run_study(tmp_path, "segmentation.py", *flags, "--seeds", "0")
    shut = of(tmp_path, GLANDS)
    assert not {"winner", "test_openings", "validation"} & shut.user_attrs.keys()
    assert shut.trials[10].user_attrs["point"] == f"winner of {GLANDS}"
    assert shut.trials[10].params == known["point"]
    report = (tmp_path / "mlruns" / "reports" / GLANDS / "index.html").read_text()
    assert "What each choice buys" in report and "was opened 0 times" in report
    assert dl4ia(tmp_path, "results", GLANDS, "--to", "kept").returncode == 0
    folder = tmp_path / "kept" / GLANDS
    page = (folder / "README.md").read_text()
    assert (
        "The test set stayed shut. There is no test score." in page
        and "## What each choice buys" in page
    )
    record = json.loads((folder / "study.json").read_text())
    assert record["winner"] == shut.user_attrs["selection"]["winner"]
    assert record["test_openings"] == [] and "scores" not in record
    assert (folder / "ablation.csv").exists() and not (folder / "test.csv").exists()

    shutil.move(tmp_path / "mlruns", tmp_path / "earlier")
    (tmp_path / "mlruns").mkdir()
    shutil.copy(folder / "optuna.db", tmp_path / "mlruns" / "optuna.db")
    run_study(tmp_path, "segmentation.py", *flags)
    scored = of(tmp_path, GLANDS)
    assert [trial.params for trial in scored.trials] == [trial.params for trial in shut.trials]
    assert [trial.values for trial in scored.trials] == [trial.values for trial in shut.trials]
    assert kept_repeats(scored) == kept_repeats(shut)
    assert all("process" not in trial.user_attrs for trial in scored.trials)
    assert len(scored.user_attrs["test_openings"]) == 1
    assert dl4ia(tmp_path, "results", GLANDS, "--to", "kept").returncode == 0
    assert (folder / "test.csv").exists()
    lost = dl4ia(tmp_path, "results", GLANDS, "--to", "kept", "--out", "earlier")
    assert lost.returncode == 2 and "holds the test scores" in lost.stderr


def test_a_copy_that_was_gone_on_with_is_not_replaced(
    written: Path, gland_study: Path, tmp_path: Path
) -> None:
    shutil.copytree(written / GLANDS, tmp_path / GLANDS)
    copy = f"sqlite:///{tmp_path}/{GLANDS}/optuna.db"
    study = optuna.load_study(study_name=GLANDS, storage=copy)
    hidden = study._storage.get_study_system_attrs(study._study_id)
    assert hidden and not [key for key in hidden if key.startswith("dashboard:")]
    study.add_trial(study.trials[0])
    to = ("results", GLANDS, "--to", str(tmp_path))
    lost = dl4ia(gland_study, *to)
    assert lost.returncode == 2 and "gone on with there, 1 of its trials" in lost.stderr
    assert lost.stderr.count("\n") == 1
    assert dl4ia(gland_study, *to, "--storage", copy).returncode == 0
    assert len(rows(tmp_path / GLANDS / "trials.csv")) == len(study.trials)
    (tmp_path / GLANDS / "optuna.db").write_text("something else")
    other = dl4ia(gland_study, *to)
    assert other.returncode == 2 and "is no copy of study" in other.stderr
    assert (tmp_path / GLANDS / "optuna.db").read_text() == "something else"
    (tmp_path / GLANDS / "optuna.db-wal").write_text("not yet in the database")
    used = dl4ia(gland_study, *to)
    assert used.returncode == 2 and "another program uses it" in used.stderr


def test_a_waiting_trial_that_was_trained_is_no_trial_of_the_copy(
    gland_study: Path, tmp_path: Path
) -> None:
    (tmp_path / "mlruns").mkdir()
    shutil.copy(gland_study / "mlruns" / "optuna.db", tmp_path / "mlruns" / "optuna.db")
    study = of(tmp_path, GLANDS)
    study.enqueue_trial(study.trials[0].params)
    to = ("results", GLANDS, "--to", "kept")
    assert dl4ia(tmp_path, *to).returncode == 0
    study.tell(study.ask(), state=TrialState.FAIL)
    again = dl4ia(tmp_path, *to)
    assert again.returncode == 0, again.stderr


def test_a_folder_that_has_no_address_is_told_first(gland_study: Path, tmp_path: Path) -> None:
    storage = f"sqlite:///{gland_study}/mlruns/optuna.db"
    for name, mark in (("a%20b", "%"), ("a?b", "?")):
        ended = dl4ia(tmp_path, "results", GLANDS, "--to", name, "--storage", storage)
        assert ended.returncode == 2 and f"--to {name}/{GLANDS}: holds '{mark}'" in ended.stderr
    assert not list(tmp_path.iterdir())


def test_hosts_are_not_published(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    study = optuna.create_study(study_name="s", storage=url)
    told = {"process": {"host": "here", "pid": 7}, "interrupted": "process 7 on here died"}
    failed = {"state": optuna.trial.TrialState.FAIL}
    study.add_trial(optuna.trial.create_trial(**failed, user_attrs=told))
    file = tmp_path / "new" / "optuna.db"
    file.parent.mkdir()
    check_copy(study, url, file)
    write_copy(study, url, file)
    (trial,) = optuna.load_study(study_name="s", storage=f"sqlite:///{file}").trials
    assert trial.user_attrs == {"interrupted": "process 7 died"}
    assert b"here" not in file.read_bytes() and [*file.parent.iterdir()] == [file]


def test_a_study_that_has_gone_on_since_its_score_says_so(
    written: Path, gland_study: Path, tmp_path: Path
) -> None:
    assert "has gone on" not in (written / GLANDS / "README.md").read_text()
    (tmp_path / "mlruns").mkdir()
    shutil.copy(gland_study / "mlruns" / "optuna.db", tmp_path / "mlruns" / "optuna.db")
    study = of(tmp_path, GLANDS)
    selection = study.user_attrs["selection"]
    (other, *_) = [t.number for t in study.trials if t.number != selection["winner"]]
    study.set_user_attr("selection", selection | {"winner": other})
    assert dl4ia(tmp_path, "results", GLANDS, "--to", "kept").returncode == 0
    page = (tmp_path / "kept" / GLANDS / "README.md").read_text()
    assert f"has gone on since:** by now trial {other} would win" in page
    assert not (tmp_path / "kept" / GLANDS / "finalists.csv").exists()
    study.set_user_attr("selection", selection)
    study.add_trial(study.best_trial)
    assert dl4ia(tmp_path, "results", GLANDS, "--to", "kept").returncode == 0
    page = (tmp_path / "kept" / GLANDS / "README.md").read_text()
    assert "has gone on since:** 1 trial completed after this winner was chosen" in page


def test_what_cannot_be_written_is_said_in_one_line(gland_study: Path, tmp_path: Path) -> None:
    missing = dl4ia(gland_study, "results", "nothing", "--to", str(tmp_path))
    assert missing.returncode == 2 and GLANDS in missing.stderr
    unmarked = dl4ia(gland_study, "results", GLANDS, "--to", str(tmp_path), "--readme", "none.md")
    assert unmarked.returncode == 2 and "<!-- results: begin -->" in unmarked.stderr
    study = optuna.create_study(study_name="young", storage=f"sqlite:///{tmp_path}/optuna.db")
    study.set_user_attr("identity", {"metric": "dice"})
    young = dl4ia(gland_study, "results", "young", "--out", str(tmp_path), "--to", str(tmp_path))
    assert young.returncode == 2 and "has no winner;" in young.stderr
    assert all(each.stderr.count("\n") == 1 for each in (missing, unmarked, young))
    assert {file.name for file in tmp_path.iterdir()} == {"optuna.db"}
