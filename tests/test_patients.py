"""patients.csv is read right, and whatever is wrong with one is told in one line."""

from pathlib import Path

import pytest

from dl4ia.data.patients import read_patients
from dl4ia.errors import InputError

IMAGES = ("image_01.png", "image_02.png", "image_03.png")
HEADER = "split,image,patient,grade,subtype\n"
ROWS = (
    "Train,image_02.png,7,benign,healthy\n"
    "Train,image_01.png,B,malignant,poorly differentiated\n"
    "Test,image_01.png,9,benign,healthy\n"
    "Train,image_03.png,7,benign,healthy\n"
)


def read(folder: Path, content: bytes, part: str = "Train") -> tuple[str, ...] | None:
    (folder / "patients.csv").write_bytes(content)
    return read_patients(folder, part, IMAGES if part == "Train" else IMAGES[:1])


def test_patients_are_in_the_order_of_the_images(tmp_path: Path) -> None:
    assert read(tmp_path, (HEADER + ROWS).encode()) == ("B", "7", "7")
    assert read(tmp_path, (HEADER + ROWS).encode(), "Test") == ("9",)


def test_without_a_file_there_are_none(tmp_path: Path) -> None:
    assert read_patients(tmp_path, "Train", IMAGES) is None


@pytest.mark.parametrize(
    "content",
    [
        ("\ufeff" + HEADER + ROWS).replace("\n", "\r\n").encode(),
        (HEADER + ROWS).replace(",", " , ").encode(),
        b"patient,split,image\n\nB,Train,image_01.png\n7,Train,image_02.png\n7,Train,image_03.png",
        (HEADER + ROWS + "Train,image_99.png,\nTrain,image_99.png,\nTrain\n").encode(),
        (HEADER + ROWS + "Validation,image_01.png,3\n").encode(),
    ],
    ids=["as Excel writes it", "spaces", "another order", "images not there", "another split"],
)
def test_other_ways_to_write_it_are_read_alike(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path, content) == ("B", "7", "7")


BAD: dict[str, tuple[str, str]] = {
    "an empty file": ("", r", line 1: no column split and no image and no patient in ''; expected"),
    "a column missing": (
        (HEADER + ROWS).replace("patient", "person"),
        ", line 1: no column patient in 'split, image, person, grade, subtype'; expected split,im",
    ),
    "semicolons": ((HEADER + ROWS).replace(",", ";"), "expected split,image,patient, with commas"),
    "no header": (ROWS, ", line 1: no column split"),
    "an image without a row": (
        (HEADER + ROWS).replace("image_02", "image_20"),
        ": no row for Train/image_02.png; expected one for every image: add Train,image_02.png",
    ),
    "no suffix": ((HEADER + ROWS).replace(".png", ""), ": no row for Train/image_01.png"),
    "another part's name": ((HEADER + ROWS).replace("Train", "train"), ": no row for Train/image_"),
    "a row twice": (
        HEADER + ROWS + "Train,image_02.png,8,,\n",
        ", line 6: Train,image_02.png again, after line 2; expected one row an image: remove",
    ),
    "no patient": (
        (HEADER + ROWS).replace("image_02.png,7", "image_02.png, "),
        ", line 2: no patient for Train,image_02.png; expected a name or number: fill it in",
    ),
    "a row cut off": (
        HEADER + ROWS.replace("image_03.png,7,benign,healthy", "image_03.png"),
        ", line 5: no patient for Train,image_03.png",
    ),
    "an open quote": ('"' + HEADER + ROWS, ": cannot be read as CSV in UTF-8 (unexpected end"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_wrong_is_told_in_one_line_that_names_the_file(tmp_path: Path, kind: str) -> None:
    content, words = BAD[kind]
    with pytest.raises(InputError) as raised:
        read(tmp_path, content.encode())
    message = str(raised.value)
    assert message.startswith(f"{tmp_path / 'patients.csv'}")
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_told(tmp_path: Path, encoding: str) -> None:
    content = (HEADER + ROWS.replace("B", "Bäcker")).encode(encoding)
    with pytest.raises(InputError, match=r"patients.csv: cannot be read as CSV in UTF-8 .*save it"):
        read(tmp_path, content)


def test_a_folder_of_that_name_is_told(tmp_path: Path) -> None:
    (tmp_path / "patients.csv").mkdir()
    with pytest.raises(InputError, match=r"patients.csv: cannot be read \(Is a directory\)"):
        read_patients(tmp_path, "Train", IMAGES)
