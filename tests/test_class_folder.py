"""A folder of classes is read right, decoded once, and whatever is wrong is told in one line."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from dl4ia.data import pixels
from dl4ia.data.class_folder import ClassFolder
from dl4ia.data.images import describe_contents, source_name
from dl4ia.errors import InputError

HEIGHT, WIDTH = 12, 9
CLASSES = ("0", "2", "10")
TRAIN, TEST = 6, 2  # images of each class

Pixels = NDArray[np.uint8]
Damage = Callable[[Path], object]


def grey(number: int, height: int = HEIGHT, width: int = WIDTH) -> Pixels:
    return np.random.default_rng(number).integers(0, 256, (height, width), np.uint8)


def coloured() -> Pixels:
    return np.stack([grey(number) for number in (500, 501, 502)], axis=-1)


def save(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def make_folder(
    folder: Path, classes: tuple[str, ...] = CLASSES, suffix: str = "png", size: int = HEIGHT
) -> Path:
    """`TRAIN` and `TEST` images of each class, numbered on through the folder."""
    for part, count in (("Train", TRAIN), ("Test", TEST)):
        for index, name in enumerate(classes):
            for number in range(count):
                pixels = grey(100 * index + 10 * (part == "Test") + number, size)
                save(folder / part / name / f"{number:05d}.{suffix}", pixels)
    return folder


def everything(folder: Path) -> list[tuple[str, int]]:
    """Names and sizes of whatever is in a folder."""
    return sorted((str(path), path.stat().st_size) for path in folder.rglob("*"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "My Digits")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "mlruns" / "cache"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every image that is opened, in order."""
    opened: list[Path] = []
    real = pixels.open_image

    def counting(path: Path) -> Image.Image:
        opened.append(path)
        return real(path)

    monkeypatch.setattr(pixels, "open_image", counting)
    return opened


def test_images_and_labels_are_read(folder: Path, cache: Path) -> None:
    source = ClassFolder(folder, cache)
    assert source.classes == CLASSES
    for dataset, count, start in ((source.train(), TRAIN, 0), (source.test(), TEST, 10)):
        assert dataset.images.shape == (3 * count, 1, HEIGHT, WIDTH)
        assert dataset.images.dtype == torch.float32
        assert dataset.labels.dtype == torch.int64
        assert dataset.labels.tolist() == [0] * count + [1] * count + [2] * count
        assert dataset.names[0] == "0/00000.png"
        assert dataset.names[-1] == f"10/{count - 1:05d}.png"
        for index in range(3 * count):
            expected = grey(100 * (index // count) + start + index % count) / 255
            np.testing.assert_allclose(dataset.images[index, 0].numpy(), expected, atol=1e-7)


def test_name_and_description_come_from_the_folder(folder: Path, cache: Path) -> None:
    source = ClassFolder(folder, cache)
    assert source.name == "my-digits"
    assert source.preparation == {"classes": "0, 2, 10"}
    assert (
        source.description == f"{folder}: 18 training and 6 test images of 3 classes, read as grey"
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("10", "9", "0"), ("0", "9", "10")),
        (("gland", "10", "9"), ("10", "9", "gland")),
        (("ψ", "alpha", "Beta"), ("Beta", "alpha", "ψ")),
    ],
    ids=["numbers", "a word among them", "words"],
)
def test_classes_are_sorted(
    tmp_path: Path, cache: Path, names: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    folder = make_folder(tmp_path / "Classes", names)
    assert ClassFolder(folder, cache).classes == expected


@pytest.mark.parametrize("suffix", ["PNG", "bmp", "tif", "TIFF"])
def test_other_formats_are_read_alike(
    folder: Path, tmp_path: Path, cache: Path, suffix: str
) -> None:
    other = make_folder(tmp_path / "Other", suffix=suffix)
    expected = ClassFolder(folder, cache).train().fingerprint()
    assert ClassFolder(other, cache).train().fingerprint() == expected


@pytest.mark.parametrize("suffix", ["jpg", "JPEG"])
def test_jpegs_are_read_nearly_alike(tmp_path: Path, cache: Path, suffix: str) -> None:
    train = ClassFolder(make_folder(tmp_path / "Jpegs", suffix=suffix), cache).train()
    assert (train.images[0, 0] - torch.from_numpy(grey(0) / 255)).abs().mean() < 0.15


def test_grey_that_is_saved_in_colours_is_grey(folder: Path, cache: Path) -> None:
    expected = ClassFolder(folder, cache).train().fingerprint()
    path = folder / "Train/2/00001.png"
    Image.open(path).convert("RGB").save(path)
    Image.open(folder / "Train/2/00002.png").convert("RGBA").save(folder / "Train/2/00002.png")
    assert ClassFolder(folder, cache).train().fingerprint() == expected


def test_what_compression_makes_of_grey_is_no_colour(folder: Path, cache: Path) -> None:
    for path in folder.rglob("*.png"):
        Image.open(path).save(path.with_suffix(".webp"))  # which has no grey, and is lossy
        path.unlink()
    source = ClassFolder(folder, cache)
    assert source.channels == "grey" and source.train().images.shape[1] == 1


@pytest.mark.parametrize(("mode", "channels"), [("P", 3), ("RGBA", 3), ("CMYK", 1)])
def test_colours_of_other_formats(mode: str, channels: int, folder: Path, cache: Path) -> None:
    """CMYK is read as grey alone."""
    colours = coloured()
    path = folder / "Train/2/00001.png"
    path.unlink()
    Image.fromarray(colours).convert(mode).save(path.with_suffix(".tif"))
    assert ClassFolder(folder, cache).train().images.shape[1] == channels


def test_one_coloured_training_image_makes_all_be_read_in_colour(
    folder: Path, cache: Path, decoded: list[Path]
) -> None:
    grey_source = ClassFolder(folder, cache)
    expected = grey_source.train().images
    assert grey_source.channels == "grey" and "channels" not in grey_source.preparation
    path = folder / "Train/2/00001.png"
    colours = coloured()
    save(path, colours)
    source = ClassFolder(folder, cache)
    assert source.description.endswith("images of 3 classes, in colour")  # before it is read
    assert source.preparation == {"classes": "0, 2, 10", "channels": "rgb"}
    train, test = source.train(), source.test()
    assert train.images.shape == (18, 3, HEIGHT, WIDTH) and test.images.shape[1] == 3
    row = train.names.index("2/00001.png")
    assert torch.equal(
        (255 * train.images[row]).round().byte().permute(1, 2, 0), torch.tensor(colours)
    )
    others = [index for index in range(18) if index != row]
    assert torch.equal(train.images[others], expected[others].expand(-1, 3, -1, -1))
    del decoded[:]
    again = ClassFolder(folder, cache)
    assert again.train().fingerprint() == train.fingerprint() and again.channels == "rgb"
    assert len(decoded) == 1  # the cache knows; the first tells the size


def test_colours_are_read_as_the_user_says(folder: Path, cache: Path) -> None:
    """Whatever the cache of the same files was made for."""
    path = folder / "Train/2/00001.png"
    save(path, coloured())
    expected = {1: np.array(Image.open(path).convert("L"))[np.newaxis],
                3: np.moveaxis(np.array(Image.open(path)), -1, 0)}  # fmt: skip
    for _ in range(2):
        for kind, channels in (("grey", 1), ("auto", 3), ("rgb", 3)):
            source = ClassFolder(folder, cache, kind)
            train, test = source.train(), source.test()
            assert train.images.shape[1] == test.images.shape[1] == channels
            assert source.channels == ("grey" if channels == 1 else "rgb")
            found = train.images[train.names.index("2/00001.png")]
            assert torch.equal((255 * found).round().byte(), torch.tensor(expected[channels]))
    assert len(list(cache.iterdir())) == 6  # none takes another's place


def test_the_training_images_say_how_the_test_images_are_read(folder: Path, cache: Path) -> None:
    save(folder / "Test/2/00001.png", coloured())
    source = ClassFolder(folder, cache)
    assert source.channels == "grey" and source.test().images.shape[1] == 1


def test_whatever_is_no_image_is_passed_over(folder: Path, cache: Path) -> None:
    expected = ClassFolder(folder, cache).train().fingerprint()
    (folder / "Train/notes.txt").write_text("ours")
    (folder / "Train/0/Thumbs.db").write_bytes(b"theirs")
    (folder / "Train/0/._00000.png").write_bytes(b"a Mac's")
    (folder / "Train/0/folder.png").mkdir()
    (folder / "Test/.cache").mkdir()
    assert ClassFolder(folder, cache).train().fingerprint() == expected


def test_images_are_decoded_once(folder: Path, cache: Path, decoded: list[Path]) -> None:
    first = ClassFolder(folder, cache).train()
    assert len(decoded) == 1 + 18  # the first one tells the size
    second = ClassFolder(folder, cache).train()
    assert len(decoded) == 1 + 18 + 1
    assert second.fingerprint() == first.fingerprint()
    assert second.names == first.names


def test_the_cache_of_each_part_is_written_when_it_is_read(folder: Path, cache: Path) -> None:
    source = ClassFolder(folder, cache)
    assert not cache.exists()
    source.train()
    (train,) = cache.iterdir()
    assert train.match("my-digits-*-train.npz")
    source.test()
    assert len(list(cache.iterdir())) == 2
    assert len(list(cache.glob("my-digits-*-test.npz"))) == 1


def test_folders_of_one_name_have_a_cache_each(tmp_path: Path, cache: Path) -> None:
    for place, classes in (("here", CLASSES), ("there", ("a", "b"))):
        folder = make_folder(tmp_path / place / "Digits", classes)
        assert len(ClassFolder(folder, cache).train()) == TRAIN * len(classes)
    assert len(list(cache.iterdir())) == 2


def rewrite(folder: Path) -> None:
    save(folder / "Train/2/00003.png", 255 - grey(103))


def rewrite_unseen(folder: Path) -> None:
    """Other pixels, but the same size and modification time."""
    path = folder / "Train/2/00003.bmp"
    before = path.stat()
    save(path, 255 - grey(103))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def add(folder: Path) -> None:
    save(folder / "Train/2/00077.png", grey(77))


def rename(folder: Path) -> None:
    (folder / "Train/2/00003.png").rename(folder / "Train/0/00003b.png")


def remove(folder: Path) -> None:
    (folder / "Train/2/00003.png").unlink()


def resize_all(folder: Path) -> None:
    shutil.rmtree(folder)
    make_folder(folder, size=HEIGHT + 3)


@pytest.mark.parametrize("change", [rewrite, rewrite_unseen, add, rename, remove, resize_all])
def test_a_changed_folder_is_decoded_again(
    tmp_path: Path, cache: Path, change: Callable[[Path], None]
) -> None:
    suffix = "bmp" if change is rewrite_unseen else "png"
    folder = make_folder(tmp_path / "Digits", suffix=suffix)
    before = ClassFolder(folder, cache).train()
    change(folder)
    after = ClassFolder(folder, cache).train()
    assert after.fingerprint() != before.fingerprint()
    assert after.fingerprint() == ClassFolder(folder, cache / "new").train().fingerprint()
    assert len(list(cache.glob("*.npz"))) == 1  # the old one is replaced


def flip_a_pixel(content: bytes) -> bytes:
    start = content.index(grey(0).tobytes())
    return content[:start] + bytes([content[start] ^ 255]) + content[start + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"garbage" * 99,
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        flip_a_pixel,
    ],
    ids=["empty", "garbage", "half", "one byte short", "another pixel"],
)
def test_a_broken_cache_is_made_again(
    folder: Path, cache: Path, damage: Callable[[bytes], bytes]
) -> None:
    expected = ClassFolder(folder, cache).train().fingerprint()
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    assert ClassFolder(folder, cache).train().fingerprint() == expected
    assert kept.read_bytes() == whole
    assert list(cache.iterdir()) == [kept]


@pytest.mark.parametrize("contents", [{"other": np.zeros(3)}, {"key": np.array(["a", "b"])}])
def test_another_programs_cache_is_made_again(
    folder: Path, cache: Path, contents: dict[str, np.ndarray]
) -> None:
    expected = ClassFolder(folder, cache).train().fingerprint()
    (kept,) = cache.iterdir()
    np.savez(kept, **contents)  # type: ignore[arg-type]
    assert ClassFolder(folder, cache).train().fingerprint() == expected


def test_a_cache_that_cannot_be_written_is_no_error(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mlruns").write_text("a file")
    assert len(ClassFolder(folder, tmp_path / "mlruns" / "cache").train()) == 18


def test_a_full_disk_leaves_no_part_of_a_cache(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(stream: object, **_: object) -> None:
        stream.write(b"PK")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert len(ClassFolder(folder, cache).train()) == 18
    assert list(cache.iterdir()) == []


def delete(name: str) -> Damage:
    return lambda folder: shutil.rmtree(folder / name)


def write(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def redraw(name: str, pixels: Pixels) -> Damage:
    return lambda folder: save(folder / name, pixels)


def truncate(folder: Path) -> None:
    path = folder / "Train/2/00003.png"
    path.write_bytes(path.read_bytes()[:90])


def only_texts(folder: Path) -> None:
    for path in (folder / "Train/2").iterdir():
        path.rename(path.with_suffix(".txt"))


def loose_images(folder: Path) -> None:
    shutil.rmtree(folder / "Train")
    for number in range(3):
        save(folder / f"Train/{number}.png", grey(number))


def make_empty(name: str) -> Damage:
    def damage(folder: Path) -> None:
        shutil.rmtree(folder / name)
        (folder / name).mkdir()

    return damage


def keep_one_class(folder: Path) -> None:
    for part in ("Train", "Test"):
        for name in CLASSES[1:]:
            shutil.rmtree(folder / part / name)


def shrink_all(folder: Path) -> None:
    shutil.rmtree(folder)
    make_folder(folder, size=7)


DEEP = np.zeros((HEIGHT, WIDTH), np.uint16)

DAMAGES: dict[str, tuple[Damage, str, str]] = {
    "no folder": (lambda folder: shutil.rmtree(folder), "", "no such folder; expected one with"),
    "no Train": (delete("Train"), "Train", "no such folder; expected <class>/ folders"),
    "train": (
        lambda folder: (folder / "Train").rename(folder / "training"),
        "Train",
        "has: folder 'Test', folder 'training'",
    ),
    "no Test": (delete("Test"), "Test", "no such folder; expected <class>/ folders"),
    "nothing in Train": (make_empty("Train"), "Train", "no class folders in it, but nothing;"),
    "loose images": (loose_images, "Train", "no class folders in it, but 3 .png files"),
    "an empty class": (make_empty("Train/2"), "Train/2", "no images in it, but nothing; expected"),
    "an empty test class": (make_empty("Test/2"), "Test/2", "no images in it, but nothing"),
    "only texts": (only_texts, "Train/2", "no images in it, but 6 text files; expected .png, .jpg"),
    "a class in Train only": (delete("Test/10"), "Test/10", "expected the same classes in both"),
    "a class in Test only": (delete("Train/10"), "Train/10", "expected the same classes in both"),
    "one class": (keep_one_class, "Train", "only class '0'; expected at least 2"),
    "a class whose name is not in UTF-8": (
        lambda folder: [
            (folder / part / "10").rename(folder / part / os.fsdecode(b"\xdcbung"))
            for part in ("Train", "Test")
        ],
        "Train/�bung",
        "its name is not in UTF-8; expected one: rename it",
    ),
    "a class called like another's interval": (
        lambda folder: [
            (folder / part / "10").rename(folder / part / "2_low") for part in ("Train", "Test")
        ],
        "Train/2_low",
        "the accuracy of '2_low' would be called as what is said of that of '2'; expected another",
    ),
    "four images": (
        lambda folder: [(folder / f"Train/2/0000{number}.png").unlink() for number in (0, 1)],
        "Train/2",
        "4 training images; expected at least 5 of each class",
    ),
    "an image of another size": (
        redraw("Train/2/00003.png", grey(1, WIDTH, HEIGHT)),
        "Train/2/00003.png",
        f"{HEIGHT}x{WIDTH} pixels; expected {WIDTH}x{HEIGHT} as in ",
    ),
    "small images": (shrink_all, "Train/0/00000.png", "9x7 pixels; expected at least 8 a side"),
    "garbage": (write("Train/2/00003.png", b"garbage" * 9), "Train/2/00003.png", "cannot be read"),
    "an empty image": (write("Train/2/00003.png", b""), "Train/2/00003.png", "it is empty"),
    "a truncated image": (truncate, "Train/2/00003.png", "cannot be read"),
    "sixteen bits": (redraw("Train/2/00003.png", DEEP), "Train/2/00003.png", "pixel format I;16"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_is_wrong_is_told_in_one_line_and_nothing_is_written(
    folder: Path, cache: Path, tmp_path: Path, kind: str
) -> None:
    damage, file, words = DAMAGES[kind]
    damage(folder)
    before = everything(tmp_path)
    with pytest.raises(InputError) as raised:
        ClassFolder(folder, cache).train()
    message = str(raised.value)
    assert message.startswith(f"{folder / file}: ")
    assert words in message
    assert "\n" not in message
    assert everything(tmp_path) == before


def test_images_of_unequal_size_are_both_named(folder: Path, cache: Path) -> None:
    save(folder / "Test/2/00001.png", grey(1, 30))
    source = ClassFolder(folder, cache)
    source.train()
    with pytest.raises(InputError) as raised:
        source.test()
    for file in (folder / "Test/2/00001.png", folder / "Train/0/00000.png"):
        assert str(file) in str(raised.value)
    assert len(list(cache.iterdir())) == 1


def test_training_opens_no_test_file(folder: Path, cache: Path, decoded: list[Path]) -> None:
    for file in folder.glob("Test/*/*"):
        file.write_bytes(b"not a picture")
    source = ClassFolder(folder, cache)
    assert decoded == []
    assert len(source.train()) == 18
    assert all(folder / "Train" in path.parents for path in decoded)
    with pytest.raises(InputError, match=r"Test/0/00000\.png: cannot be read"):
        source.test()


def test_classes_that_mlflow_could_not_tell_apart(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(InputError, match=r"c\+: MLflow, .* could not tell it from 'c#'"):
        ClassFolder(make_folder(tmp_path / "signs", ("c#", "c+")), cache)
    with pytest.raises(InputError, match="a name of 201 letters; expected at most 200"):
        ClassFolder(make_folder(tmp_path / "long", ("a", "b" * 201)), cache)


def test_a_link_to_nothing_is_named(folder: Path, cache: Path) -> None:
    (folder / "Train" / "0" / "lost.png").symlink_to("nowhere.png")
    with pytest.raises(InputError, match=r"lost.png: a link to nothing"):
        ClassFolder(folder, cache).train()


def test_a_name_is_made_of_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert source_name(Path("My  Digits_2/")) == "my-digits-2"
    assert source_name(Path("/")) == "data"
    monkeypatch.chdir(tmp_path)
    assert source_name(Path()) == source_name(tmp_path)


def test_contents_are_described_by_their_kinds(tmp_path: Path) -> None:
    assert describe_contents(tmp_path) == "nothing"
    for number in range(12):
        (tmp_path / f"{number}.txt").touch()
    (tmp_path / "LICENSE").touch()
    (tmp_path / "train").mkdir()
    assert describe_contents(tmp_path) == "12 text files, 1 file, folder 'train'"
    (tmp_path / "a.csv").touch()
    assert describe_contents(tmp_path) == "12 text files, 1 file, 1 .csv file, …"


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_formats_of_the_web_are_read_too(folder: Path, cache: Path, suffix: str) -> None:
    expected = ClassFolder(folder, cache).train().fingerprint()
    for path in folder.rglob("*.png"):
        Image.open(path).save(path.with_suffix(suffix), lossless=True)
        path.unlink()
    assert ClassFolder(folder, cache).train().fingerprint() == expected


def test_images_below_a_class_are_not_passed_over(folder: Path, cache: Path) -> None:
    within = folder / "Train" / "2" / "later"
    within.mkdir()
    (within / "notes.txt").touch()
    assert ClassFolder(folder, cache).training_images == 18
    save(within / "00099.png", grey(99))
    with pytest.raises(InputError, match=r"Train/2/later: a folder of images within class '2'"):
        ClassFolder(folder, cache)
