"""The gland folder is read right, and whatever is wrong with one is told in one line."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from dl4ia.data.gland_folder import GlandFolder, shift_images
from dl4ia.data.splits import make_splits
from dl4ia.errors import InputError

HEIGHT, WIDTH = 20, 26
WARWICK = Path(__file__).parents[2] / "shared/data/WARWICK"

Pixels = NDArray[np.uint8]
Damage = Callable[[Path], object]


def stains(number: int, height: int = HEIGHT, width: int = WIDTH) -> Pixels:
    """(H, W, 3): random red and green, no blue."""
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
    pixels[..., 2] = 0
    return pixels


def colours(number: int) -> Pixels:
    """(H, W, 3): random, with blue."""
    return np.random.default_rng(number).integers(1, 256, (HEIGHT, WIDTH, 3), np.uint8)


def gland(number: int, height: int = HEIGHT, width: int = WIDTH) -> Pixels:
    """(H, W): 255 in a rectangle, 0 elsewhere."""
    pixels = np.zeros((height, width), np.uint8)
    pixels[2 : 5 + number, 3:9] = 255
    return pixels


def save(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def make_folder(folder: Path, image: Callable[[int], Pixels] = stains, count: int = 6) -> Path:
    """`count` pairs to train on and two to test on."""
    for part, numbers in (("Train", range(1, count + 1)), ("Test", range(11, 13))):
        for number in numbers:
            save(folder / part / f"image_{number:02d}.png", image(number))
            save(folder / part / f"label_{number:02d}.png", gland(number % 10))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "My Glands")


def test_stains_are_read_as_two_channels(folder: Path) -> None:
    train = GlandFolder(folder).train()
    assert train.names == tuple(f"image_{number:02d}.png" for number in range(1, 7))
    assert train.images.shape == (6, 2, HEIGHT, WIDTH)
    assert train.images.dtype == torch.float32
    assert train.labels.dtype == torch.int64
    for index, number in enumerate(range(1, 7)):
        expected = stains(number)[..., :2].transpose(2, 0, 1) / 255
        np.testing.assert_allclose(train.images[index].numpy(), expected, atol=1e-7)
        np.testing.assert_array_equal(train.labels[index].numpy(), gland(number) > 0)


def test_test_images_are_of_the_training_images_size(folder: Path) -> None:
    """Others would be of another magnification."""
    for name, pixels in (("image", stains(11, 40, 40)), ("label", gland(11, 40, 40))):
        for number in (11, 12):
            save(folder / "Test" / f"{name}_{number}.png", pixels)
    expected = rf"Test/image_11\.png: 40x40 pixels; expected {WIDTH}x{HEIGHT} as in Train/image_01"
    with pytest.raises(InputError, match=expected):
        GlandFolder(folder).test()


def test_the_test_part_is_read_from_test(folder: Path) -> None:
    test = GlandFolder(folder).test()
    assert test.names == ("image_11.png", "image_12.png")
    expected = stains(12)[..., 0] / 255
    np.testing.assert_allclose(test.images[1, 0].numpy(), expected, atol=1e-7)


@pytest.mark.parametrize(("value", "missing"), [(0, "object"), (255, "background")])
def test_labels_of_one_value_are_no_labels(folder: Path, value: int, missing: str) -> None:
    """A network that marks nothing, or all, would be right everywhere."""
    for number in range(1, 7):
        pixels = np.full((HEIGHT, WIDTH), value, np.uint8)
        save(folder / "Train" / f"label_{number:02d}.png", pixels)
    with pytest.raises(InputError, match=f"Train: no label has any {missing} "):
        GlandFolder(folder).train()
    save(folder / "Train" / "label_03.png", gland(3))
    assert len(GlandFolder(folder).train()) == 6


def test_an_image_in_the_transparency_is_told(folder: Path) -> None:
    """Read without it, it would be one colour all over."""
    colour = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    save(folder / "Train" / "image_02.png", np.dstack([colour, gland(2)]))
    with pytest.raises(InputError, match=r"image_02.png: .*drawn in its transparency"):
        GlandFolder(folder, "rgb").train()


def test_a_mask_in_the_transparency_is_told(folder: Path) -> None:
    colour = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    save(folder / "Train" / "label_02.png", np.dstack([colour, gland(2)]))
    with pytest.raises(InputError, match=r"label_02.png: one colour all over, with transparency"):
        GlandFolder(folder).train()


def test_negative_labels_are_told(folder: Path) -> None:
    (folder / "Train" / "label_02.png").unlink()
    Image.fromarray(-gland(2).astype(np.int32)).save(folder / "Train" / "label_02.tif")
    with pytest.raises(InputError, match=r"label_02.tif: value -255; expected 0"):
        GlandFolder(folder).train()


def test_name_and_description_come_from_the_folder(folder: Path) -> None:
    source = GlandFolder(folder, "stain", 0.5)
    assert source.name == "my-glands"
    images = f"{folder}: 6 training and 2 test images"
    assert source.description == f"{images}, moved by 0.5 pixels onto their labels"
    assert GlandFolder(folder).description == images
    assert source.preparation == {"channels": "stain", "image_shift": 0.5}


@pytest.mark.parametrize("channels", ["rgb", "auto"])
def test_colour_images_are_read_as_three_channels(tmp_path: Path, channels: str) -> None:
    train = GlandFolder(make_folder(tmp_path, colours), channels).train()
    assert train.images.shape == (6, 3, HEIGHT, WIDTH)
    np.testing.assert_allclose(train.images[0, 2].numpy(), colours(1)[..., 2] / 255, atol=1e-7)


def grey(number: int) -> Pixels:
    """(H, W)."""
    return colours(number)[..., 0]


def four(number: int) -> Pixels:
    """(H, W, 4)."""
    return np.dstack([colours(number), grey(number + 100)])


def opaque(number: int) -> Pixels:
    """(H, W, 4): colours, and a fourth channel that says nothing."""
    return np.dstack([colours(number), np.full((HEIGHT, WIDTH), 255, np.uint8)])


@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    [(grey, "grey", grey), (four, "rgba", four), (opaque, "rgb", colours)],
    ids=["grey", "four channels", "opaque"],
)
def test_one_and_four_channels(
    tmp_path: Path,
    image: Callable[[int], Pixels],
    kind: str,
    expected: Callable[[int], Pixels],
) -> None:
    source = GlandFolder(make_folder(tmp_path, image))
    assert source.preparation["channels"] == kind
    wanted = np.atleast_3d(expected(3)).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(source.train().images[2].numpy(), wanted, atol=1e-7)


def test_colours_may_be_read_as_grey(tmp_path: Path) -> None:
    train = GlandFolder(make_folder(tmp_path, colours), "grey").train()
    wanted = np.array(Image.fromarray(colours(1)).convert("L")) / 255
    np.testing.assert_allclose(train.images[0, 0].numpy(), wanted, atol=1e-7)


def test_a_fourth_channel_that_is_not_there_is_told(tmp_path: Path) -> None:
    source = GlandFolder(make_folder(tmp_path, colours), "rgba")
    with pytest.raises(InputError, match=r"image_01\.png: pixel format RGB; .* four channels"):
        source.train()


@pytest.mark.parametrize("suffix", [".tif", ".TIFF", ".bmp", ".jpg"])
def test_other_formats_are_read(folder: Path, suffix: str) -> None:
    before = GlandFolder(folder).train()
    for file in sorted((folder / "Train").iterdir()):
        name = file.stem + (".bmp" if suffix == ".jpg" and "label" in file.name else suffix)
        with Image.open(file) as image:
            image.save(file.with_name(name), quality=100)
        file.unlink()
    # The red and green noise of these images gains some blue in a JPEG file.
    train = GlandFolder(folder, "rgb" if suffix == ".jpg" else "auto").train()
    assert train.names[0] == f"image_01{suffix}"
    assert torch.equal(train.labels, before.labels)
    if suffix != ".jpg":
        assert torch.equal(train.images, before.images)


def test_numbered_glands_are_glands(folder: Path) -> None:
    numbered = gland(1) // 255
    numbered[10:14, 12:20] = 2
    save(folder / "Train/label_01.png", numbered)
    train = GlandFolder(folder).train()
    assert torch.equal(train.labels[0] > 0, torch.tensor(numbered > 0))
    assert train.labels.unique().tolist() == [0, 1]
    # Their numbers tell them apart; where the others have one value, what hangs together is one.
    assert train.instances is not None
    assert torch.equal(train.instances[0], torch.tensor(numbered).int())
    assert train.instances[1:].unique().tolist() == [0, 1]
    assert torch.equal(train.instances[1:] > 0, train.labels[1:] > 0)


def test_instances_are_kept_and_change_nothing_that_is_trained_on(folder: Path) -> None:
    before = GlandFolder(folder).train()
    assert before.instances is None
    for number in range(1, 7):
        halves = (gland(number) > 0).astype(np.uint16)
        halves[:, 6:] *= 300
        save(folder / f"Train/instances_{number:02d}.png", halves)
    train = GlandFolder(folder).train()
    assert train.fingerprint() == before.fingerprint()
    assert train.instances is not None and train.instances.shape == train.labels.shape
    assert train.instances.unique().tolist() == [0, 1, 300]
    chosen = train.subset([2, 1]).instances
    assert chosen is not None and torch.equal(chosen[1], train.instances[1])


def test_instances_that_are_elsewhere_are_told(folder: Path) -> None:
    for number in range(1, 7):
        save(folder / f"Train/instances_{number:02d}.png", gland(number + (number == 4)))
    with pytest.raises(InputError, match=r"instances_04\.png: glands elsewhere than in label_04"):
        GlandFolder(folder).train()


def test_stains_may_be_read_as_colours(folder: Path) -> None:
    train = GlandFolder(folder, "rgb").train()
    assert train.images.shape[1] == 3
    assert train.images[:, 2].max() == 0


def test_images_of_other_sizes_are_read(tmp_path: Path) -> None:
    for part, count in (("Train", 5), ("Test", 1)):
        for number in range(count):
            save(tmp_path / part / f"image_{number}.png", stains(number, 37, 16))
            save(tmp_path / part / f"label_{number}.png", gland(number, 37, 16))
    assert GlandFolder(tmp_path).train().images.shape == (5, 2, 37, 16)


@pytest.mark.parametrize(
    "label",
    [
        gland(1) // 255,
        gland(1) > 0,
        np.repeat(gland(1)[..., None], 3, axis=2),
    ],
    ids=["0 and 1", "one bit", "grey as colour"],
)
def test_other_ways_to_save_a_mask_are_read_alike(folder: Path, label: Pixels) -> None:
    save(folder / "Train/label_01.png", label)
    labels = GlandFolder(folder).train().labels[0]
    np.testing.assert_array_equal(labels.numpy(), gland(1) > 0)


@pytest.mark.parametrize("value", [0, 255])
def test_masks_of_nothing_and_of_everything_are_read(folder: Path, value: int) -> None:
    save(folder / "Train/label_01.png", np.full((HEIGHT, WIDTH), value, np.uint8))
    assert (GlandFolder(folder).train().labels[0] == value // 255).all()


def test_an_image_shift_of_half_a_pixel_averages_neighbours(folder: Path) -> None:
    shifted = GlandFolder(folder, image_shift=0.5).train()
    red = stains(1)[..., 0] / 255
    assert shifted.images[0, 0, 7, 9].item() == pytest.approx(red[6:8, 8:10].mean(), abs=1e-6)
    # At the top and the left the edge is repeated.
    assert shifted.images[0, 0, 0, 9].item() == pytest.approx(red[0, 8:10].mean(), abs=1e-6)
    assert shifted.images[0, 0, 7, 0].item() == pytest.approx(red[6:8, 0].mean(), abs=1e-6)
    assert torch.equal(shifted.labels, GlandFolder(folder).train().labels)


def test_no_image_shift_changes_nothing() -> None:
    images = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(shift_images(images, 0.0), images)


def test_an_image_shift_moves_content_down_and_right() -> None:
    images = torch.zeros(1, 1, 5, 5)
    images[0, 0, 2, 2] = 1
    expected = torch.tensor([[0.5625, 0.1875], [0.1875, 0.0625]])
    torch.testing.assert_close(shift_images(images, 0.25)[0, 0, 2:4, 2:4], expected)


def remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def rename(name: str, new: str) -> Damage:
    return lambda folder: folder.joinpath(name).rename(folder / new)


def write(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def redraw(name: str, pixels: Pixels) -> Damage:
    return lambda folder: save(folder / name, pixels)


def truncate(name: str) -> Damage:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return damage


def rewrite(name: str, new: str) -> Damage:
    def damage(folder: Path) -> None:
        with Image.open(folder / name) as image:
            image.save(folder / new)
        (folder / name).unlink()

    return damage


def shrink_all(folder: Path) -> None:
    for number in range(1, 7):
        save(folder / f"Train/image_{number:02d}.png", stains(number, 15, 40))
        save(folder / f"Train/label_{number:02d}.png", gland(number, 15, 40))


def voc_label(folder: Path) -> None:
    label = Image.fromarray((gland(1) > 0).astype(np.uint8), mode="P")
    label.putpalette([0, 0, 0, 128, 0, 0])
    label.save(folder / "Train/label_01.png")


THREE_VALUES = gland(1)
THREE_VALUES[0, 0] = 128
SOME_BLUE = stains(3)
SOME_BLUE[4, 4, 2] = 1

DAMAGES: dict[str, tuple[Damage, str, str]] = {
    "no Train": (rename("Train", "Training"), "Train", "no such folder"),
    "no Test": (rename("Test", "Testing"), "Test", "no such folder"),
    "image without label": (remove("Train/label_03.png"), "Train/image_03.png", "label is missing"),
    "label without image": (remove("Train/image_03.png"), "Train/label_03.png", "image is missing"),
    "test image without label": (
        remove("Test/label_11.png"),
        "Test/image_11.png",
        "label is missing",
    ),
    "an image of another size": (
        redraw("Train/image_04.png", stains(4, WIDTH, HEIGHT)),
        "Train/image_04.png",
        f"{HEIGHT}x{WIDTH} pixels; expected {WIDTH}x{HEIGHT}",
    ),
    "a label of another size": (
        redraw("Train/label_04.png", gland(4, HEIGHT, WIDTH + 1)),
        "Train/label_04.png",
        f"{WIDTH + 1}x{HEIGHT} pixels; expected {WIDTH}x{HEIGHT}",
    ),
    "garbage": (write("Train/image_02.png", b"garbage" * 9), "Train/image_02.png", "cannot be"),
    "an empty file": (write("Train/image_02.png", b""), "Train/image_02.png", "it is empty"),
    "an empty label": (write("Train/label_02.png", b""), "Train/label_02.png", "it is empty"),
    "a truncated file": (truncate("Train/image_02.png"), "Train/image_02.png", "cannot be read"),
    "three values": (
        redraw("Train/label_01.png", THREE_VALUES),
        "Train/label_01.png",
        "values 0, 128, 255",
    ),
    "a coloured label": (
        redraw("Train/label_01.png", colours(1)),
        "Train/label_01.png",
        "pixel format RGB; expected one whole number a pixel",
    ),
    "a label in colours of a palette": (
        voc_label,
        "Train/label_01.png",
        "pixel format P, a palette of colours; expected one whole number a pixel, such as 0 "
        "(background) and 255 (gland): save it as grey",
    ),
    "a name that is not in UTF-8": (
        lambda folder: (folder / "Train" / os.fsdecode(b"image_\xe4.png")).touch(),
        "Train/image_�.png",
        "its name is not in UTF-8",
    ),
    "a label in JPEG": (
        rewrite("Train/label_01.png", "Train/label_01.jpg"),
        "Train/label_01.jpg",
        "save it as PNG",
    ),
    "an image twice": (
        redraw("Train/image_02.bmp", stains(2)),
        "Train/image_02.png",
        "there is image_02.bmp too",
    ),
    "instances of one image alone": (
        redraw("Train/instances_01.png", gland(1)),
        "Train/instances_02.png",
        "is missing; expected one for every image",
    ),
    "some blue": (redraw("Train/image_03.png", SOME_BLUE), "Train/image_03.png", "--channels rgb"),
    "too small": (shrink_all, "Train/image_01.png", "40x15 pixels; expected at least 16"),
}


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("channels", ["stain", "auto"])
def test_what_is_wrong_is_told_in_one_line_that_names_the_file(
    folder: Path, kind: str, channels: str
) -> None:
    damage, file, words = DAMAGES[kind]
    damage(folder)
    with pytest.raises(InputError) as raised:
        GlandFolder(folder, channels).train()
    message = str(raised.value)
    assert message.startswith(f"{folder / file}: ")
    assert words in message
    assert "\n" not in message


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder.*Train/ and Test/.*another one"):
        GlandFolder(tmp_path / "nowhere")


def test_too_few_training_images_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="4 training images; expected at least 5"):
        GlandFolder(make_folder(tmp_path, count=4))


def test_colours_are_refused_where_stains_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"image_01\.png: its blue channel is not 0"):
        GlandFolder(make_folder(tmp_path, colours), "stain").train()


def test_training_opens_no_test_file(folder: Path) -> None:
    for file in (folder / "Test").iterdir():
        file.write_bytes(b"not a picture")
    source = GlandFolder(folder)
    assert len(source.train()) == 6
    with pytest.raises(InputError, match=r"Test/image_11\.png: cannot be read"):
        source.test()


def write_patients(folder: Path) -> None:
    """Two training images a patient; one test image is of a patient seen in training."""
    rows = [f"Train,image_{number:02d}.png,{(number + 1) // 2}" for number in range(1, 7)]
    rows += ["Test,image_11.png,4", "Test,image_12.png,1"]
    (folder / "patients.csv").write_text("\n".join(["split,image,patient", *rows, ""]))


def test_groups_are_the_patients(folder: Path) -> None:
    source = GlandFolder(folder)
    before = source.train()
    assert before.groups is None and before.subset([1]).groups is None
    write_patients(folder)
    source = GlandFolder(folder)
    train = source.train()
    assert train.groups == ("1", "1", "2", "2", "3", "3")
    assert train.subset([5, 0]).groups == ("3", "1")
    assert source.test().groups == ("4", "1")
    assert train.fingerprint() == before.fingerprint()


@pytest.mark.parametrize("part", ["Train", "Test"])
def test_a_wrong_patients_file_is_told_before_the_search(folder: Path, part: str) -> None:
    write_patients(folder)
    file = folder / "patients.csv"
    file.write_text(file.read_text().replace(f"{part},", f"{part}ing,"))
    with pytest.raises(InputError, match=f"patients.csv: no row for {part}/image_[01]1.png"):
        GlandFolder(folder)


def test_the_courses_data_are_read() -> None:
    if not WARWICK.is_dir():
        pytest.skip(f"the course's data are not at {WARWICK}; they may not be distributed")
    source = GlandFolder(WARWICK)
    for dataset, count, share in ((source.train(), 85, 0.50), (source.test(), 60, 0.49)):
        assert dataset.images.shape == (count, 2, 128, 128)
        assert dataset.labels.double().mean().item() == pytest.approx(share, abs=0.005)


def test_the_courses_patients_are_kept_together() -> None:
    if not (WARWICK / "patients.csv").is_file():
        pytest.skip(f"the course's patients are not at {WARWICK}; they may not be distributed")
    train = GlandFolder(WARWICK).train()
    assert train.groups is not None and len(set(train.groups)) == 15
    shares = train.labels.double().mean((1, 2)).numpy()
    for seed in range(5):
        (split,) = make_splits(shares, 1, seed, train.groups)
        assert len(split.validation) == 17
        assert shares[list(split.validation)].mean() == pytest.approx(0.50, abs=0.04)
        for split in make_splits(shares, 5, seed, train.groups):
            trained = train.subset(split.train).groups or ()
            validated = train.subset(split.validation).groups or ()
            assert not set(trained) & set(validated)
            assert 14 <= len(split.validation) <= 21
            assert shares[list(split.validation)].mean() == pytest.approx(0.50, abs=0.06)


def test_auto_is_settled_by_the_training_images(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "Colours", colours)
    save(folder / "Test" / "image_11.png", stains(1))
    source = GlandFolder(folder)
    assert source.preparation["channels"] == "rgb"
    assert source.test().images.shape[1] == source.train().images.shape[1] == 3

    folder = make_folder(tmp_path / "Stains")
    save(folder / "Test" / "image_12.png", colours(1))
    source = GlandFolder(folder)
    assert source.preparation["channels"] == "stain"
    with pytest.raises(InputError, match=r"Test/image_12\.png: its blue channel is not 0"):
        source.test()


def test_a_palette_label_is_read_by_colour(folder: Path) -> None:
    expected = GlandFolder(folder).train().labels
    path = folder / "Train" / "label_01.png"
    palette = Image.fromarray((gland(1) == 0).astype(np.uint8), mode="P")
    palette.putpalette([255, 255, 255, 0, 0, 0])  # index 0 is white
    palette.save(path)
    assert torch.equal(GlandFolder(folder).train().labels, expected)


@pytest.mark.skipif(not WARWICK.is_dir(), reason=f"the course's images are not at {WARWICK}")
def test_the_courses_images_are_moved_onto_their_labels() -> None:
    assert GlandFolder(WARWICK).image_shift == 0.5
    assert GlandFolder(WARWICK, image_shift=0.0).image_shift == 0.0


def test_other_images_stay_where_they_are(folder: Path) -> None:
    assert GlandFolder(folder).image_shift == 0.0


def test_a_constant_channel_stays_small_where_augmentation_changes_it(folder: Path) -> None:
    """Green and blue of a red stain saved as colours: else a tenth would be a hundred."""

    def red(number: int) -> Pixels:
        return colours(number) * np.array([1, 0, 0], np.uint8)

    train = GlandFolder(make_folder(folder.parent / "Red", red), "rgb").train()
    mean, deviation = train.channel_statistics
    assert mean[1:] == [0, 0] and deviation[1:] == [1, 1] and 0.2 < deviation[0] < 0.4


def test_an_image_that_is_not_shifted_is_not_copied() -> None:
    images = torch.rand(2, 1, 4, 4)
    assert shift_images(images, 0.0) is images


def test_numbers_with_gaps_are_refused_with_a_way_out(folder: Path) -> None:
    """As patches of a numbered mask have them."""
    numbered = gland(1) // 255
    numbered[10:14, 12:20] = 3
    save(folder / "Train/label_01.png", numbered)
    with pytest.raises(InputError, match=r"values 0, 1, 3;.*: renumber them, or save 0 and 255"):
        GlandFolder(folder).train()
