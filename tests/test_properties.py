"""Whatever is put in: points, spaces, words on the command line, files in data folders."""

import contextlib
import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import write_class_folder, write_gland_folder
from fuzz_readers import fuzz
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from dl4ia.command_line.flags import add_gland_flags, parse, study_parser
from dl4ia.data.class_folder import ClassFolder
from dl4ia.data.gland_folder import GlandFolder
from dl4ia.errors import InputError
from dl4ia.search_space import (
    Domain,
    applies,
    check_point,
    choice,
    fingerprint,
    integer,
    markdown_table,
    real,
    sample,
)
from search_spaces import classification, segmentation

SPACES = {"segmentation": segmentation.SPACE, "classification": classification.SPACE}
optuna.logging.set_verbosity(optuna.logging.ERROR)
NAMES = st.text("abcdefghij_", min_size=1, max_size=6)
VALUES = st.one_of(st.booleans(), st.integers(-5, 5), st.floats(-2, 2), st.text(max_size=3))


@st.composite
def domains(draw: st.DrawFn) -> Domain:
    kind = draw(st.sampled_from(("choice", "real", "integer")))
    if kind == "choice":
        return choice(*draw(st.lists(st.text("xyz", min_size=1), min_size=1, unique=True)), doc="")
    if kind == "integer":
        low = draw(st.integers(-50, 50))
        return integer(low, low + draw(st.integers(0, 50)), doc="")
    low = draw(st.floats(1e-6, 1e3))
    return real(low, low + draw(st.floats(1e-6, 1e3)), log=draw(st.booleans()), doc="")


def drawn(space: dict[str, Domain], seed: int) -> dict[str, Any]:
    sampler = optuna.samplers.RandomSampler(seed=seed)
    return sample(space, optuna.create_study(sampler=sampler).ask())


@given(st.dictionaries(NAMES, domains(), min_size=1, max_size=6), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_what_is_drawn_from_any_space_is_inside_it(space: dict[str, Domain], seed: int) -> None:
    point = drawn(space, seed)
    check_point(space, point, "drawn")
    assert fingerprint(space) == fingerprint(dict(space))
    assert all(f"`{name}`" in markdown_table(space, {"drawn": point}) for name in space)


@pytest.mark.parametrize("task", SPACES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_changed_point_is_inside_or_told(task: str, data: st.DataObject) -> None:
    """Of the real spaces, whose hyperparameters hang on one another."""
    space = SPACES[task]
    point = drawn(dict(space), data.draw(st.integers(0, 2**31)))
    check_point(space, point, "drawn")
    name = data.draw(st.one_of(st.sampled_from(list(space)), NAMES))
    changed = dict(point)
    if data.draw(st.booleans()):
        changed.pop(name, None)
    else:
        changed[name] = data.draw(VALUES)
    told = None
    try:
        check_point(space, changed, "changed")
    except ValueError as error:
        told = str(error)
        assert told.startswith("changed: ") and "\n" not in told.replace("\\n", "")
    applicable = {key for key, domain in space.items() if applies(domain, changed)}
    valid = changed.keys() == applicable and all(changed[key] in space[key] for key in changed)
    assert (told is None) == valid


FLAGS = ["--trials", "--data", "--out", "--study-name", "--storage", "--epochs", "--folds",
         "--seed", "--split-by", "--objectives", "--knee", "--finalists", "--repeats", "--ablate",
         "--device", "--timeout", "--workers", "--ray", "--gpus-per-worker", "--channels",
         "--within", "--image-shift", "--help", "--no-such-flag"]  # fmt: skip
WORDS = st.one_of(
    st.sampled_from(FLAGS),
    st.sampled_from(
        [
            "1",
            "50",
            "0",
            "-1",
            "2h",
            "dice,weights",
            "dropout,schedule",
            "dropout=0..0.1",
            "all",
            "patient",
            "rgb",
            "0.5",
            "nan",
        ]
    ),
    st.text(max_size=12),
)


@given(st.lists(WORDS, max_size=6))
@settings(max_examples=400, deadline=None)
@example(["--trials", "٣"])
@example(["--timeout", "1e400h"])
def test_any_command_line_is_taken_or_told_in_one_line(words: list[str]) -> None:
    parser = study_parser("A study.", "", "", "")
    add_gland_flags(parser)
    output, errors = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            arguments, _ = parse(parser, words)
    except SystemExit as ended:
        text = errors.getvalue()
        assert ended.code == (2 if text else 0)
        assert not text or (text.startswith("error: ") and text.count("\n") == 1)
    else:
        assert arguments.trials >= 1 and arguments.folds >= 1


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """An image, or anything."""
    if draw(st.integers(0, 3)) == 0:
        return draw(st.binary(max_size=40))
    mode = draw(st.sampled_from(("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F")))
    form = "TIFF" if mode in ("CMYK", "F") else draw(st.sampled_from(("PNG", "TIFF")))
    size = (draw(st.sampled_from((1, 16, 20))), draw(st.sampled_from((16, 20))))
    file = io.BytesIO()
    colour = draw(st.tuples(*[st.integers(0, 255)] * 3))
    image = Image.new("RGB", size, colour).convert("L" if mode in ("I;16", "F") else mode)
    image = image.convert(mode)
    image.save(file, form)
    return file.getvalue()


PLACES = st.builds(
    "{}/{}".format,
    st.sampled_from(("Train", "Test", "Train/a", "Train/b", "Test/a", "Test/b", ".")),
    st.one_of(
        st.builds(
            "{}_{}.{}".format,
            st.sampled_from(("image", "label", "instances")),
            st.integers(0, 5),
            st.sampled_from(("png", "tif", "bmp", "jpg", "txt")),
        ),
        st.sampled_from(("patients.csv", "1.png", "2.png", "3.png", "4.png", "5.png", ".hidden")),
    ),
)


@pytest.fixture(scope="module")
def whole_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[type, Path]:
    """One that can be read, for each reader."""
    folder = tmp_path_factory.mktemp("whole")
    glands, classes = write_gland_folder(folder / "glands"), write_class_folder(folder / "classes")
    return {GlandFolder: glands, ClassFolder: classes}


@pytest.mark.parametrize("reader", [GlandFolder, ClassFolder])
@given(content=st.dictionaries(PLACES, files(), max_size=24), beneath=st.booleans())
@example(content={}, beneath=True)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_data_folder_is_read_or_told_in_one_line(
    whole_folders: dict[type, Path], reader: type, content: dict[str, bytes], beneath: bool
) -> None:
    """beneath: whether what hypothesis makes up is laid over a folder that can be read."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "data")
        if beneath:
            shutil.copytree(whole_folders[reader], folder)
        folder.mkdir(exist_ok=True)
        for name, content_of in content.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content_of)
        try:
            source = reader(folder, Path(temporary)) if reader is ClassFolder else reader(folder)
            dataset = source.train()
        except InputError as error:
            assert "\n" not in str(error) and str(folder) in str(error)
            assert content or not beneath
        else:
            assert len(dataset) >= 2 and float(dataset.images.min()) >= 0


def test_damaged_files_are_read_or_told(tmp_path: Path) -> None:
    """A short run of the fuzzer; a long one is `python tests/fuzz_readers.py`."""
    found = fuzz(10.0, 1, tmp_path)
    assert found["image, refused"] > 100 and found["IDX, refused"] > 100
    assert found["image, read"] > 20 and found["IDX, read"] > 5
