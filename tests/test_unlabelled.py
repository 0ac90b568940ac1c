"""Images to predict, hostile ones among them: each is read rightly or refused by name."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dl4ia.data.unlabelled import find_images, read_unlabelled
from dl4ia.errors import InputError

HEIGHT, WIDTH = 20, 24
ORIENTATION, TURNED_RIGHT = 0x0112, 6  # EXIF: show it turned by a quarter, clockwise
RGB = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
GREY = RGB[..., 0]
STAINS = RGB * np.array([1, 1, 0], np.uint8)


def png(path: Path, size: tuple[int, int], depth: int, colours: int, pixels: bytes) -> None:
    """A PNG file as the bytes say, which Pillow would not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", *size, depth, colours, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )


def turned(path: Path, image: Image.Image, compression: str | None = None) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED_RIGHT
    image.save(path, exif=exif, compression=compression)


def sixteen_bits(kind: int, channels: int) -> Callable[[Path], None]:
    """Writes twelve bits in sixteen; kind: PNG's number for colours, and for what has an alpha."""

    def write(path: Path) -> None:
        values = np.resize(GREY, (HEIGHT, WIDTH, channels)).astype(">u2") * 16
        png(path, (WIDTH, HEIGHT), 16, kind, b"".join(b"\0" + row.tobytes() for row in values))

    return write


def transparent(path: Path) -> None:
    alpha = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
    Image.fromarray(np.concatenate([RGB, alpha], 2)).save(path)


def palette(path: Path) -> None:
    image = Image.fromarray(GREY).convert("P")
    image.putpalette([value for index in range(256) for value in (index, index, 0)])
    image.save(path)


def pages(path: Path) -> None:
    second = Image.new("RGB", (5, 5))
    Image.fromarray(RGB).save(path, save_all=True, append_images=[second])


def cmyk(path: Path) -> None:
    Image.fromarray(RGB).convert("CMYK").save(path, quality=100)


def cut_short(path: Path) -> None:
    Image.fromarray(RGB).save(path)
    path.write_bytes(path.read_bytes()[:-400])


def postscript(path: Path) -> None:
    path.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n"
    )


def foreign_exif(path: Path) -> None:
    exif = b"Exif\0\0MM\0*\xff\xff\xff\xff" if path.suffix == ".jpg" else b"Exif\0\0no EXIF"
    Image.fromarray(RGB).save(path, exif=exif)


def alpha_drawing(path: Path) -> None:
    black = np.zeros_like(RGB)
    Image.fromarray(np.dstack([black, GREY])).save(path)


YELLOW = np.stack([GREY, GREY, np.zeros_like(GREY)], 2)
NEARLY = 3  # grey levels, of a JPEG of the highest quality

# name, how it is made, channels, the pixels (and how far off they may be) or what is said
Case = tuple[str, Callable[[Path], None], int, np.ndarray | str]
CASES: list[Case] = [
    ("grey.png", lambda path: Image.fromarray(GREY).save(path), 1, GREY),
    ("grey.bmp", lambda path: Image.fromarray(GREY).save(path), 3, np.stack([GREY] * 3, 2)),
    ("one_bit.png", lambda path: Image.fromarray(GREY > 127).save(path), 1,
     (GREY > 127) * np.uint8(255)),
    ("colours.tif", lambda path: Image.fromarray(RGB).save(path), 3, RGB),
    ("colours.webp", lambda path: Image.fromarray(RGB).save(path, lossless=True), 3, RGB),
    ("stains.png", lambda path: Image.fromarray(STAINS).save(path), 2, STAINS[..., :2]),
    ("sixteen_bit_colours.png", sixteen_bits(2, 3), 3,
     "colours of 16 bits a channel; expected 8: convert it"),
    ("sixteen_bit_rgba.png", sixteen_bits(6, 4), 4, "colours of 16 bits a channel"),
    ("sixteen_bit_grey_with_alpha.png", sixteen_bits(4, 2), 1, "colours of 16 bits a channel"),
    ("transparent.png", transparent, 3, RGB),
    ("four_channels.tif", transparent, 4, np.dstack([RGB, np.zeros_like(GREY)])),
    ("no_fourth_channel.png", lambda path: Image.fromarray(RGB).save(path), 4,
     "pixel format RGB; expected 8 bits a channel, four channels (RGBA)"),
    ("palette.png", palette, 2, YELLOW[..., :2]),
    ("pages.tif", pages, 3, RGB),
    ("turned.png", lambda path: turned(path, Image.fromarray(RGB)), 3, np.rot90(RGB, -1)),
    ("turned.tif", lambda path: turned(path, Image.fromarray(GREY)), 1, np.rot90(GREY, -1)),
    ("turned_and_packed.tif", lambda path: turned(path, Image.fromarray(GREY), "tiff_lzw"), 1,
     np.rot90(GREY, -1)),
    ("turned.jpg", lambda path: turned(path, Image.new("RGB", (24, 20), "red")), 3,
     np.full((24, 20, 3), (254, 0, 0), np.uint8)),
    ("cmyk_of_a_digit.jpg", cmyk, 1, "grey as Pillow converts it"),
    ("cmyk.jpg", cmyk, 3, "pixel format CMYK; expected 8 bits a channel, RGB: convert it"),
    ("colours_for_stains.png", lambda path: Image.fromarray(RGB).save(path), 2,
     "its blue channel is not 0"),
    ("sixteen_bit.png", lambda path: Image.fromarray(GREY.astype(np.uint16) * 257).save(path), 1,
     "pixel format I;16; expected 8 bits a channel"),
    ("sixteen_bit.tif", lambda path: Image.fromarray(GREY.astype(np.uint16)).save(path), 3,
     "pixel format I;16"),
    ("floats.tif", lambda path: Image.fromarray(GREY.astype(np.float32)).save(path), 1,
     "pixel format F"),
    ("one_pixel.png", lambda path: Image.new("RGB", (1, 1)).save(path), 3,
     "1x1 pixels; expected at least 16 a side"),
    ("line.png", lambda path: Image.new("L", (5000, 1)).save(path), 1,
     "5000x1 pixels; expected at least 16 a side"),
    ("bomb.png", lambda path: png(path, (60_000, 60_000), 8, 0, b"\0"), 1,
     "more than 89 million pixels"),
    ("small_bomb.png", lambda path: png(path, (10_000, 10_000), 8, 0, b"\0"), 1,
     "more than 89 million pixels"),
    ("lying_size.png", lambda path: png(path, (9_000, 9_000), 8, 0, b"\0" * 100), 1,
     "cannot be read as an image"),
    ("cut_short.png", cut_short, 3, "cannot be read as an image (OSError)"),
    ("cut_short.jpg", cut_short, 3, "cannot be read as an image (OSError)"),
    ("cut_short.bmp", cut_short, 3, "cannot be read as an image (OSError)"),
    ("cut_short.tif", cut_short, 3, "cannot be read as an image"),
    ("empty.png", lambda path: path.write_bytes(b""), 3, "it is empty"),
    ("text.png", lambda path: path.write_text("no image"), 3, "UnidentifiedImageError"),
    ("postscript.png", postscript, 3, "UnidentifiedImageError"),
    ("foreign_exif.jpg", foreign_exif, 3, "read, and not turned"),
    ("foreign_exif.png", foreign_exif, 3, RGB),
    ("colours.gif", lambda path: Image.fromarray(GREY).save(path), 3, np.stack([GREY] * 3, 2)),
    ("a_png.jpg.tif", lambda path: Image.fromarray(RGB).save(path, "PNG"), 3, RGB),
    ("alpha_drawing.png", alpha_drawing, 3, "one colour all over, drawn in its transparency"),
    ("cmyk_of_grey_glands.tif", lambda path: Image.fromarray(RGB).convert("CMYK").save(path), 1,
     np.array(Image.fromarray(RGB).convert("CMYK").convert("L"))),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_an_image_is_read_rightly_or_refused_by_name(tmp_path: Path, case: Case) -> None:
    name, write, channels, expected = case
    path = tmp_path / name
    write(path)
    if name == "cmyk_of_a_digit.jpg":
        expected = np.array(Image.fromarray(RGB).convert("CMYK").convert("L"))
    if name == "foreign_exif.jpg":
        expected = RGB
    if isinstance(expected, str):
        with pytest.raises(InputError) as refused:
            read_unlabelled(path, channels, 16)
        assert str(refused.value).startswith(f"{path}: ")
        assert expected in str(refused.value) and "\n" not in str(refused.value)
        return
    pixels = read_unlabelled(path, channels, 16)
    wanted = expected if expected.ndim == 3 else expected[..., np.newaxis]
    assert pixels.dtype == np.uint8 and pixels.shape == wanted.shape
    if path.suffix != ".jpg":
        np.testing.assert_array_equal(pixels, wanted)
    elif name != "foreign_exif.jpg":  # noise is not what JPEG is made for
        assert np.abs(pixels.astype(int) - wanted).mean() < NEARLY


def test_files_and_folders(tmp_path: Path) -> None:
    for name in ("a.png", "b/2.PNG", "b/c/1.jpg", "b/.hidden/3.png", "b/.4.png", "b/notes.txt",
                 "b/image_1.png", "b/label_1.tif", "b/instances_1.png", "b/label_2.png",
                 "b/masks/2.png"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "b" / "folder.png").mkdir()
    places = [tmp_path / "a.png", tmp_path / "b", tmp_path / "a.png", tmp_path / "b" / "2.PNG"]
    found = find_images(places, skipped=[tmp_path / "b" / "masks"])
    names = [path.relative_to(tmp_path).as_posix() for path in found]
    expected = ["b/2.PNG", "b/c/1.jpg", "b/gone.png", "b/image_1.png", "b/label_2.png"]
    assert names == ["a.png", *expected]  # the one that is gone is told when it is opened


def test_labels_in_capitals_are_labels(tmp_path: Path) -> None:
    for name in ("image_1.PNG", "label_1.PNG", "image_2.1.Tif", "label_2.1.png"):
        (tmp_path / name).touch()
    assert [path.name for path in find_images([tmp_path])] == ["image_1.PNG", "image_2.1.Tif"]


def test_a_name_that_nothing_could_show(tmp_path: Path) -> None:
    """As Windows archives have them; a table of predictions could not be written."""
    (tmp_path / os.fsdecode(b"gr\xfcn.png")).touch()
    with pytest.raises(InputError, match="gr�n.png: its name is not in UTF-8; .*: rename it"):
        find_images([tmp_path])


def test_what_an_earlier_run_wrote_is_no_image(tmp_path: Path) -> None:
    masks = tmp_path / "out" / "masks"
    masks.mkdir(parents=True)
    Image.fromarray(RGB).save(masks / "a.png")
    for place in (masks, masks / "a.png"):
        with pytest.raises(InputError, match="is output of an earlier run; expected"):
            find_images([place], (masks,))


def test_links_to_nothing_are_named_and_those_to_folders_passed_over(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "elsewhere").mkdir()
    Image.fromarray(RGB).save(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "lost.png").symlink_to("nowhere.png")
    (found,) = find_images([tmp_path / "in"])
    with pytest.raises(InputError, match=r"lost.png: cannot be read"):
        read_unlabelled(found, 3, 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into any folder")
def test_a_folder_that_cannot_be_looked_into_is_named(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(0o000)
    with pytest.raises(InputError, match="closed: cannot be looked into"):
        find_images([tmp_path])


def test_colours_of_16_bits_in_planes_are_refused(tmp_path: Path) -> None:
    """As tifffile and scikit-image write an array with the channels first."""
    import tifffile

    values = np.random.default_rng(0).integers(0, 1 << 16, (3, HEIGHT, WIDTH), np.uint16)
    for planes in ("separate", "contig"):
        file = tmp_path / f"{planes}.tif"
        shown = values if planes == "separate" else values.transpose(1, 2, 0)
        tifffile.imwrite(file, shown, photometric="rgb", planarconfig=planes)
        with pytest.raises(InputError, match="colours of 16 bits a channel; expected 8"):
            read_unlabelled(file, 3, 1)
    tifffile.imwrite(file, RGB.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    assert (read_unlabelled(file, 3, 1) == RGB).all()


def test_a_place_without_an_image(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"no images in it, but 1 text file; expected \.png"):
        find_images([tmp_path])
    for missing in (tmp_path / "nowhere", Path("/dev/null")):
        with pytest.raises(InputError, match="no such file or folder"):
            find_images([missing])
