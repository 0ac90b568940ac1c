import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from dl4ia.command_line.flag_types import study_name
from dl4ia.command_line.flags import parse, study_parser
from dl4ia.data.gland_folder import GlandFolder
from dl4ia.errors import InputError, TrackingError, TrialFailure
from dl4ia.session import Length, Session, open_device, open_session
from dl4ia.tasks.segmentation import SegmentationTask
from dl4ia.workflow import trials, whole_study
from dl4ia.workflow.retrainings import retraining_of
from search_spaces import segmentation


def open_in(out: Path, folder: Path, *flags: str) -> Session:
    """A session of the gland study."""
    arguments, _ = parse(study_parser("", "", "", ""), ["--out", str(out), *flags])
    return open_session(
        SegmentationTask(), GlandFolder(folder), segmentation, Length(3, 3), arguments
    )


def test_a_study_goes_on_only_with_the_split_it_began_with(
    tmp_path: Path, gland_folder: Path
) -> None:
    parts = (("Train", 10), ("Test", 6))
    rows = [
        f"{part},image_{number:02d}.png,{number % 5}\n"
        for part, count in parts
        for number in range(1, count + 1)
    ]
    (gland_folder / "patients.csv").write_text("split,image,patient\n" + "".join(rows))
    for first, other in (("image", "patient"), ("patient", "image")):
        flags = ["--study-name", first, "--split-by"]
        session = open_in(tmp_path / "out", gland_folder, *flags, first)
        assert session.identity.split_by == first
        assert open_in(tmp_path / "out", gland_folder, *flags, first).identity == session.identity
        told = f"split_by is '{first}' there and '{other}' here"
        with pytest.raises(InputError, match=told) as refused:
            open_in(tmp_path / "out", gland_folder, *flags, other)
        assert "\n" not in str(refused.value)
    (split,) = session.objective.splits
    trained = session.dataset.subset(split.train).groups or ()
    validated = session.dataset.subset(split.validation).groups or ()
    assert (len(set(trained)), len(set(validated))) == (4, 1)
    assert set(trained) | set(validated) == set("01234")
    assert session.validation == "2 images of other patients"
    by_image = open_in(tmp_path / "out", gland_folder, "--study-name", "image")
    assert by_image.validation == "2 images (100% of patients who are trained on too)"


def test_a_folder_of_a_long_name_has_a_study_that_can_be_named(
    tmp_path: Path, gland_folder: Path
) -> None:
    folder = gland_folder.rename(tmp_path / ("a" * 200))
    session = open_in(tmp_path / "out", folder)
    assert study_name(session.name) == session.name == "segmentation-" + "a" * 87


def test_a_split_by_patient_needs_patients(tmp_path: Path, gland_folder: Path) -> None:
    with pytest.raises(InputError, match="--split-by patient: .*patients.csv beside Tr") as refused:
        open_in(tmp_path / "out", gland_folder, "--split-by", "patient")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--ablate", "depth,droput"), "--ablate droput: no hyperparameter of this study"),
        (("--objectives", "dice,weights", "--ablate"), "--ablate: needs a winner; expected --knee"),
        (("--gpus-per-worker", "0.5"), "--gpus-per-worker: expected --ray too"),
        (
            ("--ray", "local", "--gpus-per-worker", "0.5", "--device", "cpu"),
            "--gpus-per-worker 0.5: --device cpu trains on none; expected 0",
        ),
    ],
)
def test_a_flag_that_would_do_nothing_is_refused(
    tmp_path: Path, gland_folder: Path, flags: tuple[str, ...], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        open_in(tmp_path / "out", gland_folder, *flags)
    assert not (tmp_path / "out").exists()


def test_a_failed_retraining_is_told_in_one_line() -> None:
    with (
        pytest.raises(InputError, match="training trial 3 again .*epoch 2: out of memory") as told,
        retraining_of(3),
    ):
        raise TrialFailure("epoch 2: out of memory")
    assert "\n" not in str(told.value)


def test_a_gpu_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for name in ("auto", "cpu"):
        device, environment = open_device(name)
        assert device.type == environment["device"] == "cpu"
    with pytest.raises(InputError, match="--device cuda"):
        open_device("cuda")


@pytest.mark.parametrize(
    ("gpu", "built", "is_used"),
    [
        ((7, 0), ["sm_75", "sm_80", "sm_120"], False),
        ((8, 9), ["sm_75", "sm_80", "sm_120"], True),  # as every later one of its major version
        ((9, 0), ["sm_80", "sm_90a"], True),
        ((10, 0), ["sm_80", "compute_90"], True),  # compiled for it as it runs
        ((8, 0), ["sm_86", "compute_90"], False),
    ],
)
def test_a_gpu_that_torch_was_not_built_for_is_not_used(
    gpu: tuple[int, int],
    built: list[str],
    is_used: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its first computation would fail, and end the study."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda *_: "Volta")
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda *_: gpu)
    monkeypatch.setattr("torch.cuda.get_arch_list", lambda: built)
    assert open_device("auto")[0].type == ("cuda" if is_used else "cpu")
    assert ("nothing for Volta: training on" in capsys.readouterr().out) != is_used
    assert open_device("cpu")[0].type == "cpu"
    if not is_used:
        with pytest.raises(InputError, match="--device cuda: this build .* Volta; expected a bui"):
            open_device("cuda")


def test_a_worker_begins_while_mlflow_is_away(tmp_path: Path, gland_folder: Path) -> None:
    """Its study has asked for MLflow, which a worker has no use for."""
    flags = ["--tracking-uri", "http://127.0.0.1:9"]  # where nothing listens
    with pytest.raises(InputError, match="it does not answer"):
        open_in(tmp_path / "out", gland_folder, *flags)
    assert open_in(tmp_path / "out", gland_folder, *flags, "--worker").study.trials


def test_the_time_is_a_commands_not_a_searchs(
    tmp_path: Path, gland_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that takes the records over after its trials has no further time for trials."""
    flags: list[list[str]] = []
    monkeypatch.setattr(
        trials, "open_workers", lambda session, count, told: flags.append(told) or nullcontext()
    )
    words = ["--timeout", "2h", "--workers", "2"]
    session = open_in(tmp_path / "out", gland_folder, *words)
    before = time.time()
    for _ in range(2):
        with trials.Trials(session):
            time.sleep(0.01)
    first, second = ([name, float(end)] for name, end in flags)
    assert first == second and first[0] == "--until"
    assert before + 7200 <= first[1] <= time.time() + 7200
    worker = open_in(tmp_path / "out", gland_folder, *words, "--worker", "--until", "5")
    assert worker.search_time.end() == 5


def test_why_a_study_ended_is_told_though_mlflow_fails(
    tmp_path: Path, gland_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended(Exception):
        pass

    def end(*_: object) -> None:
        raise Ended

    def fail(*_: object, **__: object) -> None:
        raise TrackingError("connection refused")

    session = open_in(tmp_path / "out", gland_folder, "--workers", "1")
    monkeypatch.setattr(trials.Trials, "run", end)
    monkeypatch.setattr(session.tracker, "close", fail)
    with pytest.raises(Ended):
        whole_study._keep(session)
