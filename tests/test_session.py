from pathlib import Path

import pytest

from dl4ia.command_line.flags import parse, study_parser
from dl4ia.data.gland_folder import GlandFolder
from dl4ia.errors import InputError, TrialFailure
from dl4ia.session import Length, Session, open_device, open_session
from dl4ia.tasks.segmentation import SegmentationTask
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


def test_a_split_by_patient_needs_patients(tmp_path: Path, gland_folder: Path) -> None:
    with pytest.raises(InputError, match="--split-by patient: .*patients.csv beside Tr") as refused:
        open_in(tmp_path / "out", gland_folder, "--split-by", "patient")
    assert "\n" not in str(refused.value)
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
