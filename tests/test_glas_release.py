"""The release's layout on drawn images, and its real samples against the course's own images."""

import csv
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import dl4ia
from PIL import Image

from dl4ia.data import glas_release
from dl4ia.data.gland_folder import GlandFolder
from dl4ia.data.glas_release import count_images, prepare_glas, resize_instances
from dl4ia.data.stains import unmix
from dl4ia.errors import InputError

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
COUNTS = {"train": 6, "testA": 2, "testB": 1}


def write_release(folder: Path) -> Path:
    """Nine images of 60x40 pixels, each with two glands."""
    generator = np.random.default_rng(0)
    place = folder / "Warwick QU Dataset (Released 2016_07_08)"
    place.mkdir(parents=True)
    lines = ["name,patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)"]
    for part, count in COUNTS.items():
        for number in range(1, count + 1):
            name = f"{part}_{number}"
            glands = np.zeros((40, 60), np.uint8)
            glands[5:30, 5:25], glands[8:35, 30:55] = 1, 2
            pixels = generator.integers(90, 160, (40, 60, 3), np.uint8)
            pixels[glands > 0, 0] += 60
            Image.fromarray(pixels).save(place / f"{name}.bmp")
            Image.fromarray(glands).save(place / f"{name}_anno.bmp")
            lines.append(f"{name},{number % 3}, benign, healthy")
    (place / "Grade.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write_release(tmp_path / "release")


def prepared(release: Path, out: Path, split: str = "testA") -> dict[str, int]:
    return prepare_glas(release, out, 32, split, lambda: None)


def test_the_study_reads_what_is_written(release: Path, tmp_path: Path) -> None:
    assert count_images(release, "testA") == 8
    assert prepared(release, tmp_path / "out") == {"Train": 6, "Test": 2}
    source = GlandFolder(tmp_path / "out")
    assert source.channels == "stain" and source.image_shift == 0
    train = source.train()
    assert train.images.shape == (6, 2, 32, 32) and train.groups == ("1", "2", "0", "1", "2", "0")
    assert 0.4 < train.labels.double().mean() < 0.6
    with (tmp_path / "out" / "patients.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "split": "Train", "image": "image_01.png", "patient": "1", "grade": "benign",
        "subtype": "healthy",
    }  # fmt: skip
    instances = np.asarray(Image.open(tmp_path / "out" / "Train" / "instances_01.png"))
    label = np.asarray(Image.open(tmp_path / "out" / "Train" / "label_01.png"))
    assert set(np.unique(instances)) == {0, 1, 2} and ((instances > 0) == (label == 255)).all()


def test_both_test_sets_have_numbers_of_their_own(release: Path, tmp_path: Path) -> None:
    assert prepared(release, tmp_path / "out", "both") == {"Train": 6, "Test": 3}
    names = sorted(path.name for path in (tmp_path / "out" / "Test").glob("image_*.png"))
    assert names == ["image_01.png", "image_02.png", "image_61.png"]


def test_a_zip_file_gives_the_same(release: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "release.zip", "w") as archive:
        for path in sorted(release.rglob("*.*")):
            archive.write(path, path.relative_to(release))
        archive.writestr("../../outside.bmp", b"no part of it")
    prepared(release, tmp_path / "one")
    prepared(tmp_path / "release.zip", tmp_path / "other")
    files = {
        name: {p.relative_to(tmp_path / name): p.read_bytes()
               for p in (tmp_path / name).rglob("*.*")}
        for name in ("one", "other")
    }  # fmt: skip
    assert files["one"] == files["other"] and len(files["one"]) == 3 * 8 + 1
    assert not list(tmp_path.rglob("outside.bmp"))


def test_without_grades_there_are_no_patients(release: Path, tmp_path: Path) -> None:
    next(release.rglob("Grade.csv")).unlink()
    prepared(release, tmp_path / "out")
    assert GlandFolder(tmp_path / "out").train().groups is None


def a_file(release: Path, name: str) -> Path:
    return next(release.rglob(name))


BAD: list[tuple[Callable[[Path], object], str]] = [
    (lambda r: a_file(r, "train_3_anno.bmp").unlink(), r"train_3\.bmp: its label is missing"),
    (lambda r: a_file(r, "train_3.bmp").write_bytes(b""), r"train_3\.bmp: cannot be read .* empty"),
    (
        lambda r: Image.new("L", (9, 9)).save(a_file(r, "train_3_anno.bmp")),
        r"train_3_anno\.bmp: 9x9 numbers; expected one a pixel of train_3\.bmp, 40x60",
    ),
    (lambda r: a_file(r, "Grade.csv").write_text("name\n"), r"Grade\.csv: no row for "),
    (
        lambda r: a_file(r, "Grade.csv").write_text("name\ntrain_1,2\n"),
        r"Grade\.csv, line 2: 2 columns; expected name, patient, grade, subtype",
    ),
    (lambda r: [p.unlink() for p in r.rglob("testA_*")], r"no testA_N\.bmp in it"),
]


@pytest.mark.parametrize(("damage", "said"), BAD)
def test_a_broken_release_is_told_and_nothing_is_left(
    release: Path, tmp_path: Path, damage: Callable[[Path], object], said: str
) -> None:
    damage(release)
    with pytest.raises(InputError, match=said):
        prepared(release, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["release"]


def test_what_is_no_release_or_has_no_room_is_told(release: Path, tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(InputError, match=r"text\.zip: is neither a folder nor a zip file"):
        prepared(tmp_path / "text.zip", tmp_path / "out")
    with pytest.raises(InputError, match="is there already"):
        prepared(release, release)
    with pytest.raises(InputError, match=r"missing\.zip: is neither"):
        count_images(tmp_path / "missing.zip", "testA")


def test_whatever_is_damaged_in_a_zip_is_told(release: Path, tmp_path: Path) -> None:
    whole = tmp_path / "release.zip"
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(release.rglob("*.bmp")):
            archive.write(file, file.name)
        start = archive.getinfo("train_1.bmp").header_offset
    content = whole.read_bytes()
    for seed in range(20):
        damaged = bytearray(content)
        for place in np.random.default_rng(seed).integers(start + 50, start + 1500, 3):
            damaged[place] ^= 0x55
        whole.write_bytes(damaged)
        with pytest.raises(InputError, match="cannot be unpacked|cannot be read as an image"):
            prepared(whole, tmp_path / "out")


def test_an_empty_folder_may_be_the_current_one_or_a_link(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what lies beside it, whatever it is called, is not touched."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real.part").write_text("mine")
    (tmp_path / "link").symlink_to("real")
    assert prepared(release, tmp_path / "link") == {"Train": 6, "Test": 2}
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "Train").is_dir()
    assert (tmp_path / "real.part").read_text() == "mine"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    prepared(release, Path())
    assert (tmp_path / "here" / "Test" / "label_02.png").is_file()
    assert (tmp_path / "here").stat().st_mode == (tmp_path / "release").stat().st_mode


def test_a_cell_is_of_the_gland_that_covers_most_of_it() -> None:
    glands = np.zeros((4, 4), int)
    glands[:2, :2] = 7  # a whole cell
    glands[:2, 2] = 9  # half of one
    glands[2, 2] = 9  # a quarter of one
    glands[2:, 0], glands[2, 1] = 7, 9  # three quarters, two of them of 7
    assert resize_instances(glands, 2).tolist() == [[7, 9], [7, 0]]
    assert resize_instances(np.zeros((4, 4), int), 2).tolist() == [[0, 0], [0, 0]]


def test_white_has_no_stain() -> None:
    assert (unmix(np.full((8, 8, 3), 255, np.uint8), (4, 4)) == 0).all()
    assert unmix(np.zeros((8, 6, 3), np.uint8)).shape == (8, 6, 3)


def test_the_command(release: Path, tmp_path: Path) -> None:
    words = ["data", "prepare-glas", "release", "it's", "--size", "48", "--split", "testB"]
    ended = dl4ia(tmp_path, *words)
    assert ended.returncode == 0, ended.stderr
    assert "it's: 6 training and 1 test images" in ended.stdout
    assert """python studies/segmentation.py --data 'it'"'"'s'""" in ended.stdout
    test = sorted(path.name for path in (tmp_path / "it's" / "Test").iterdir())
    assert test == ["image_61.png", "instances_61.png", "label_61.png"]
    assert GlandFolder(tmp_path / "it's").train().images.shape == (6, 2, 48, 48)


def test_images_without_labels_are_unmixed_alike(release: Path, tmp_path: Path) -> None:
    """As prepare-glas does it, labels passed over; what is not in colour is named at the end."""
    prepared(release, tmp_path / "out")
    place = a_file(release, "train_1.bmp").parent
    Image.new("L", (40, 40), 90).save(place / "grey.png")
    (tmp_path / "release" / "more").mkdir()
    Image.open(place / "train_2.bmp").save(tmp_path / "release" / "more" / "train_1.png")
    ended = dl4ia(tmp_path, "data", "unmix", "release", "-o", "stains", "--size", "32")
    assert ended.returncode == 1 and "stains: 10 images of two stains" in ended.stdout
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ") and "grey.png: two stains, or grey all over; expected" in line
    with (tmp_path / "stains" / "sources.csv").open(encoding="utf-8") as file:
        sources = {row["file"]: Path(row["source"]) for row in csv.DictReader(file)}
    assert set(sources) == {path.name for path in (tmp_path / "stains").glob("*.png")} | {""}
    names = {sources[name].parent.name: name for name in ("train_1.png", "train_1-2.png")}
    second = names["more"]
    for number in range(1, 7):
        name = names[place.name] if number == 1 else f"train_{number}.png"
        ours = Image.open(tmp_path / "stains" / name)
        known = Image.open(tmp_path / "out" / "Train" / f"image_{number:02d}.png")
        np.testing.assert_array_equal(ours, known)
    known = Image.open(tmp_path / "out" / "Train" / "image_02.png")
    np.testing.assert_array_equal(Image.open(tmp_path / "stains" / second), known)
    again = dl4ia(tmp_path, "data", "unmix", "release", "-o", "stains")
    assert again.returncode == 2 and "stains: is there already" in again.stderr
    for out in ("release/stains", "release/others"):  # what the first wrote is passed over
        within = dl4ia(tmp_path, "data", "unmix", "release", "-o", out)
        assert within.returncode == 1 and f"{out}: 10 images of two stains" in within.stdout
    unmixed = dl4ia(tmp_path, "data", "unmix", "stains", "-o", "twice")
    assert unmixed.returncode == 2 and "is output of an earlier run" in unmixed.stderr
    (place / "sources.csv").write_text("slide,scanner\n7,a\n")  # a user's own table
    further = dl4ia(tmp_path, "data", "unmix", "release", "-o", "further")
    assert further.returncode == 1 and "further: 10 images of two stains" in further.stdout


def test_a_file_of_a_zip_that_is_larger_than_any_image_is_refused(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "release.zip", "w") as archive:
        archive.write(a_file(release, "train_1.bmp"), "train_1.bmp")
    monkeypatch.setattr(glas_release, "LARGEST_FILE", 1000)
    with pytest.raises(InputError, match=r"train_1\.bmp has 7254 bytes unpacked; expected at most"):
        prepared(tmp_path / "release.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_colours_of_16_bits_are_refused(release: Path, tmp_path: Path) -> None:
    file = a_file(release, "train_1.bmp")
    Image.fromarray(np.full((40, 60), 40_000, np.uint16)).save(file, format="PNG")
    with pytest.raises(InputError, match=r"train_1\.bmp: pixel format I;16; expected 8 bits"):
        prepared(release, tmp_path / "out")


@pytest.mark.skipif(not (SHARED / "GLAS-sample").is_dir(), reason="needs ../shared/data")
def test_the_courses_images_come_out(tmp_path: Path) -> None:
    prepare_glas(SHARED / "GLAS-sample", tmp_path / "out", 128, "testA", lambda: None)
    images = sorted((tmp_path / "out").rglob("image_*.png"))
    assert len(images) == 6
    for path in images:
        course = SHARED / "WARWICK" / path.relative_to(tmp_path / "out")
        ours, theirs = (np.asarray(Image.open(file)).astype(int) for file in (path, course))
        assert np.abs(ours - theirs)[..., :2].mean() < 0.4
        label, known = (
            np.asarray(Image.open(str(file).replace("image_", "label_"))) > 0
            for file in (path, course)
        )
        assert 2 * (label & known).sum() / (label.sum() + known.sum()) > 0.95


def test_names_may_be_padded_with_zeros(release: Path, tmp_path: Path) -> None:
    expected = prepared(release, tmp_path / "as it is")
    for path in sorted(release.rglob("*.bmp")):
        path.rename(path.with_name(path.name.replace("_", "_0", 1)))
    next(release.rglob("Grade.csv")).unlink()
    assert prepared(release, tmp_path / "out") == expected
    for path in sorted((tmp_path / "as it is").rglob("*.png")):
        other = tmp_path / "out" / path.relative_to(tmp_path / "as it is")
        assert other.read_bytes() == path.read_bytes()
