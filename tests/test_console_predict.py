"""`dl4ia predict` through the registered models of real studies."""

import csv
import json
import os
import re
import shutil
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from conftest import CLASSES, ROOT, dl4ia
from mlflow import MlflowClient
from PIL import Image
from scipy import ndimage

from dl4ia.console.predict import OUTLINE, overlay, predict_images
from dl4ia.console.stream import in_batches
from dl4ia.console.tiles import Canvas, tile_starts
from dl4ia.data.class_folder import ClassFolder
from dl4ia.data.gland_folder import GlandFolder
from dl4ia.data.unlabelled import unique_name
from dl4ia.errors import InputError
from dl4ia.tracking.reading import load_winner

GLANDS, DIGITS = "segmentation-tiny-glands@champion", "classification-three-digits@champion"


def uri_of(study: Path) -> str:
    return f"sqlite:///{study / 'mlruns' / 'mlflow.db'}"


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def logits_of(study: Path, model: str, images: torch.Tensor) -> torch.Tensor:
    """As the README has it: MLflow's own way to the same model."""
    uri = uri_of(study)
    client = mlflow.MlflowClient(uri, registry_uri=uri)
    version = client.get_model_version_by_alias(*model.split("@"))
    network = mlflow.pyfunc.load_model(version.source)
    return torch.as_tensor(np.asarray(network.predict(images.numpy())))


def mask_of(file: Path) -> np.ndarray:
    mask = np.array(Image.open(file))
    assert mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 255}
    return mask == 255


def test_glands_are_those_of_the_model_on_the_studys_own_images(
    gland_study: Path, tmp_path: Path
) -> None:
    """Moved by half a pixel, as the study's images are; labels beside images are passed over."""
    folder = gland_study / "Tiny Glands"
    failures = predict_images([folder / "Test"], GLANDS, tmp_path, uri_of(gland_study), 4)
    assert failures == []
    test = GlandFolder(folder, image_shift=0.5).test()
    expected = logits_of(gland_study, GLANDS, test.images).argmax(1).bool().numpy()
    assert 0.05 < expected.mean() < 0.95  # a mask that says something
    rows = rows_of(tmp_path)
    assert [Path(row["file"]).name for row in rows] == list(test.names)
    for row, wanted in zip(rows, expected, strict=True):
        mask = mask_of(tmp_path / row["mask"])
        assert (mask != wanted).mean() < 0.002  # MLflow's images are not in channels-last order
        assert int(row["glands"]) == ndimage.label(mask, np.ones((3, 3)))[1]
        assert int(row["gland_pixels"]) == mask.sum()
        assert float(row["gland_share"]) == pytest.approx(mask.mean(), abs=1e-6)
        assert row["error"] == ""
        image = np.array(Image.open(row["file"]))
        shown = np.array(Image.open(tmp_path / "overlays" / Path(row["mask"]).name))
        outline = (shown != image).any(2)
        assert (shown[outline] == OUTLINE).all() and not (outline & ~mask).any()
        inside = ndimage.binary_erosion(mask, np.ones((3, 3)))
        np.testing.assert_array_equal(outline, mask & ~inside)


def test_the_command_goes_on_after_what_it_cannot_read(gland_study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for place in ("a", "b"):
        (folder / place).mkdir(parents=True)
        shutil.copy(gland_study / "Tiny Glands/Test/image_01.png", folder / place / "x.png")
    Image.open(folder / "a" / "x.png").resize((75, 50)).save(folder / "large.png")
    Image.open(folder / "a" / "x.png").crop((0, 0, 20, 17)).save(folder / "small.png")
    Image.new("RGB", (1, 1)).save(folder / "one_pixel.png")
    (folder / "broken\nname.png").write_bytes(b"")
    (folder / "text.png").write_text("no image")
    words = ("predict", "in", "--model", GLANDS, "-o", "in/out", "--batch", "3")
    ended = dl4ia(tmp_path, *words, "--tracking-uri", uri_of(gland_study))
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    said = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert said == [
        r"error: in/broken\nname.png: cannot be read as an image (it is empty); "
        "replace or remove it",
        "error: in/one_pixel.png: 1x1 pixels; expected at least 16 a side",
        "error: in/text.png: cannot be read as an image (UnidentifiedImageError); "
        "replace or remove it",
    ]
    assert "4 images predicted by model segmentation-tiny-glands/1" in ended.stdout
    rows = {row["file"].removeprefix("in/"): row for row in rows_of(folder / "out")}
    assert list(rows) == ["a/x.png", "b/x.png", "broken\nname.png", "large.png", "one_pixel.png",
                          "small.png", "text.png"]  # fmt: skip
    assert [f"error: {row['error']}" for row in rows.values() if row["error"]] == said
    masks = {row["mask"] for row in rows.values() if row["mask"]}
    assert masks == {f"masks/{name}.png" for name in ("x", "x-2", "large", "small")}
    for kind in ("masks", "overlays"):
        written = {f"masks/{path.name}" for path in (folder / "out" / kind).iterdir()}
        assert written == masks
    for name in ("a/x.png", "large.png", "small.png"):
        mask = mask_of(folder / "out" / rows[name]["mask"])
        assert mask.shape[::-1] == Image.open(folder / name).size
    again = dl4ia(
        tmp_path, *words, "--tracking-uri", uri_of(gland_study)
    )  # its own pictures lie in
    assert again.stderr == ended.stderr and len(rows_of(folder / "out")) == 7


def test_only_what_an_earlier_run_wrote_is_replaced(gland_study: Path, tmp_path: Path) -> None:
    """Masks of the user's own are not, nor are pictures left of images that are no longer asked."""
    test = sorted((gland_study / "Tiny Glands" / "Test").glob("image_*.png"))
    out, own = tmp_path / "out", tmp_path / "own"
    predict_images(test[:2], GLANDS, out, uri_of(gland_study))
    predict_images(test[1:3], GLANDS, out, uri_of(gland_study))
    for folder in ("masks", "overlays"):
        assert {path.name for path in (out / folder).iterdir()} == {each.name for each in test[1:3]}
    (own / "masks").mkdir(parents=True)
    (own / "masks" / test[0].name).write_text("mine")
    with pytest.raises(InputError, match=r"own/masks: holds files, and there is no predictions"):
        predict_images(test, GLANDS, own, uri_of(gland_study))
    (own / "predictions.csv").write_text("file,error\n" + "x" * 200_000)
    with pytest.raises(InputError, match=r"predictions.csv: was written by something else"):
        predict_images(test, GLANDS, own, uri_of(gland_study))
    (own / "predictions.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"predictions.csv: was written by something else"):
        predict_images(test, GLANDS, own, uri_of(gland_study))
    assert (own / "masks" / test[0].name).read_text() == "mine"


def test_digits_are_those_of_the_model(digit_study: Path, tmp_path: Path) -> None:
    """With the study's own classes, one of which has a comma in its name."""
    folder = digit_study / "Three digits"
    assert not predict_images([folder / "Test"], DIGITS, tmp_path, uri_of(digit_study), 5)
    test = ClassFolder(folder, tmp_path / "cache").test()
    expected = logits_of(digit_study, DIGITS, test.images).softmax(1)
    rows = {Path(row["file"]).relative_to(folder / "Test").as_posix(): row
            for row in rows_of(tmp_path)}  # fmt: skip
    assert sorted(rows) == sorted(test.names)
    for name, shares in zip(test.names, expected, strict=True):
        assert rows[name]["class"] == CLASSES[int(shares.argmax())]
        found = [float(rows[name][f"probability_{each}"]) for each in CLASSES]
        assert found == pytest.approx(shares.tolist(), abs=2e-4)


@pytest.mark.parametrize("model", [GLANDS, DIGITS])
def test_the_documented_python_gives_logits_the_shift_and_the_classes(
    model: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    study: Path = request.getfixturevalue("gland_study" if model == GLANDS else "digit_study")
    page = (ROOT / "docs" / "using-a-model.md").read_text(encoding="utf-8")
    code = [part for part in re.findall(r"```python\n(.*?)```", page, re.S) if "5001" not in part]
    assert len(code) == 2
    shape = (3, 2, 32, 32) if model == GLANDS else (3, 1, 28, 28)
    names: dict[str, Any] = {"images": np.zeros(shape, np.float32)}
    text = "".join(code).replace("segmentation-warwick", model.removesuffix("@champion"))
    assert "sqlite:///mlruns/mlflow.db" in text
    text = text.replace("sqlite:///mlruns/mlflow.db", uri_of(study))
    # It sets MLflow's address for the whole process, in both of these.
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    exec(compile(text, "page", "exec"), names)
    assert names["logits"].shape == ((3, 2, 32, 32) if model == GLANDS else (3, 3))
    assert names["shift"] == (0.5 if model == GLANDS else 0.0)
    assert tuple(names["classes"]) == (("background", "gland") if model == GLANDS else CLASSES)


def test_digits_of_other_sizes_and_modes(digit_study: Path, tmp_path: Path) -> None:
    """Sixteen times as large, in colours or turned by EXIF: the class is the same."""
    source = Image.open(next((digit_study / "Three digits" / "Test" / "two").iterdir()))
    source.save(tmp_path / "0.png")
    large = source.resize((112, 112), Image.Resampling.BICUBIC)
    large.save(tmp_path / "1.png")
    large.convert("CMYK").save(tmp_path / "2.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    large.rotate(90).save(tmp_path / "3.jpg", exif=exif, quality=95)
    large.convert("P").save(tmp_path / "4.png")
    out = tmp_path / "out"
    assert not predict_images([tmp_path], DIGITS, out, uri_of(digit_study))
    first, *others = rows_of(out)
    assert len(others) == 4 and {row["class"] for row in others} == {first["class"]}
    for row in others:
        for name in CLASSES:
            share = float(first[f"probability_{name}"])
            assert float(row[f"probability_{name}"]) == pytest.approx(share, abs=0.1)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("segmentation-tiny-glands", "expected NAME@ALIAS or NAME/VERSION"),
        ("segmentation-tiny-glands@best", "alias best not found"),
        ("segmentation-tiny-glands/7", "version=7"),
        ("other@champion", "no model 'other' .* it has segmentation-tiny-glands"),
    ],
)
def test_a_model_that_is_not_there(
    gland_study: Path, tmp_path: Path, model: str, said: str
) -> None:
    folder = gland_study / "Tiny Glands" / "Test"
    with pytest.raises(InputError, match=said) as refused:
        predict_images([folder], model, tmp_path / "out", uri_of(gland_study))
    assert "\n" not in str(refused.value) and not list(tmp_path.iterdir())


def test_a_model_among_many(gland_study: Path, tmp_path: Path) -> None:
    """MLflow lists a hundred at once."""
    database = tmp_path / "mlflow.db"
    shutil.copy(gland_study / "mlruns" / "mlflow.db", database)
    client = MlflowClient(f"sqlite:///{database}")
    for number in range(101):
        client.create_registered_model(f"another-{number}")
    assert load_winner(f"sqlite:///{database}", "segmentation-tiny-glands@champion").input
    with pytest.raises(InputError, match="no model 'other' .* it has another-0, .*, …$"):
        load_winner(f"sqlite:///{database}", "other@champion")


class Marker:
    """Pickled, it touches a file where it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def with_a_pickle(source: Path, target: Path, mark: Path) -> None:
    """The exported program `source`, with a pickle for its first weight."""
    pickled = BytesIO()
    torch.save(Marker(mark), pickled)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for member in old.infolist():
            content = old.read(member)
            if member.filename.endswith("model_weights_config.json"):
                config = json.loads(content)
                next(iter(config["config"].values())).update(use_pickle=True, path_name="weight_0")
                content = json.dumps(config).encode()
            elif member.filename.endswith("/weight_0"):
                content = pickled.getvalue()
            new.writestr(member.filename, content, zipfile.ZIP_STORED)


def test_a_model_that_would_be_unpickled_is_refused(
    gland_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write the registry's files may not run code here, whatever MLflow is allowed."""
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    place = shutil.copytree(gland_study / "mlruns", tmp_path / "mlruns")
    uri = f"sqlite:///{place / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri, registry_uri=uri)
    version = client.get_model_version_by_alias(*GLANDS.split("@"))
    source = Path(shutil.copytree(version.source, tmp_path / "model"))
    client.create_registered_model("foreign")
    client.create_model_version("foreign", str(source), version.run_id)
    file, mark, out = source / "data" / "model.pt2", tmp_path / "mark", tmp_path / "out"
    images = [gland_study / "Tiny Glands" / "Test"]

    with_a_pickle(Path(version.source) / "data" / "model.pt2", file, mark)
    with pytest.raises(InputError, match="using pickle is disallowed"):
        predict_images(images, "foreign/1", out, uri)
    assert not mark.exists()
    with suppress(Exception):
        torch.export.load(file)
    assert mark.exists()  # torch alone does load it

    file.rename(file.with_name("model.pth"))
    with pytest.raises(InputError, match="is not an exported network"):
        predict_images(images, "foreign/1", out, uri)
    shutil.rmtree(source)
    with pytest.raises(InputError, match="model foreign/1: its files are not in .*/model any more"):
        predict_images(images, "foreign/1", out, uri)
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "true" and not out.exists()


def brightness(images: torch.Tensor) -> torch.Tensor:
    """A network that finds gland where the first channel is above a half."""
    return torch.stack([torch.zeros_like(images[:, 0]), images[:, 0] - 0.5], 1)


@pytest.mark.parametrize("size", [(16, 24), (17, 25), (100, 61), (5, 200), (1, 1), (3, 3)])
def test_tiles_cover_an_image_of_any_size(size: tuple[int, int]) -> None:
    """What depends on single pixels comes out as if there were no tiles."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 2), np.uint8)
    canvas = Canvas(pixels, (16, 24), 0.0)
    list(in_batches([(Path("x"), canvas)], brightness, 7))
    np.testing.assert_array_equal(canvas.mask(), pixels[..., 0] > 127)


def test_tiles_are_moved_as_the_whole_image() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 50, 2), np.uint8)
    small, whole = (Canvas(pixels, (side, side), 0.5) for side in (16, 50))
    for canvas in (small, whole):
        list(in_batches([(Path("x"), canvas)], brightness, 7))
    np.testing.assert_array_equal(small.mask(), whole.mask())


@pytest.mark.parametrize("sides", [(16, 16), (30, 120)])
def test_a_smaller_image_is_moved_before_it_is_reflected(sides: tuple[int, int]) -> None:
    """As it would be in training."""
    pixels = np.random.default_rng(0).integers(0, 256, (*sides, 2), np.uint8)
    small, own = (Canvas(pixels, size, 0.5) for size in ((50, 50), sides))
    for canvas in (small, own):
        list(in_batches([(Path("x"), canvas)], brightness, 7))
    np.testing.assert_array_equal(small.mask(), own.mask())


def test_neighbouring_tiles_are_blended() -> None:
    """Where two tiles disagree there is no seam: the nearer middle wins."""
    answers = iter([0.9, 0.2])

    def network(images: torch.Tensor) -> torch.Tensor:
        share = torch.tensor([next(answers) for _ in images])
        return torch.stack([1 - share, share], 1).log()[:, :, None, None].expand(-1, 2, 8, 8)

    canvas = Canvas(np.zeros((8, 12, 2), np.uint8), (8, 8), 0.0)
    list(in_batches([(Path("x"), canvas)], network, 1))
    (columns,) = {tuple(row) for row in canvas.mask().tolist()}
    assert list(columns) == sorted(columns, reverse=True) and 4 < sum(columns) < 8


def test_tile_starts() -> None:
    assert tile_starts(128, 128) == [0]
    assert tile_starts(129, 128) == [0, 1]
    for side in range(16, 200):
        starts = tile_starts(side, 16)
        assert starts[0] == 0 and starts[-1] == side - 16
        assert all(later - earlier <= 12 for earlier, later in pairwise(starts))


def test_images_stream(tmp_path: Path) -> None:
    """In their order, and never more in work than a batch has tiles, errors or none."""
    opened = done = 0

    def images() -> Iterator[tuple[Path, Canvas | InputError]]:
        nonlocal opened
        for number in range(100):
            opened += 1
            assert opened - done <= 8 + 1  # two of three have a tile
            broken = number % 3 == 0
            canvas = Canvas(np.zeros((16, 16, 2), np.uint8), (16, 16), 0.0)
            yield Path(str(number)), InputError("broken") if broken else canvas

    for number, (path, _) in enumerate(in_batches(images(), brightness, 5)):
        assert path.name == str(number)
        done += 1
    assert done == 100


def test_names_never_leave_the_folder_or_meet() -> None:
    taken: Counter[str] = Counter()
    paths = ["a/x.png", "b/x.png", "c/X.tif", "x-2.png", "x-2.jpg", "..", "a/...png", "a b\n.png",
             "é.png", "q/\udcff.png", "/", "n" * 251 + ".png", "n" * 252 + ".x"]  # fmt: skip
    names = [unique_name(Path(path), taken) for path in paths]
    assert names[:5] == ["x", "x-2", "X-3", "x-2-2", "x-2-3"] and names[8] == "é"
    assert len({name.casefold() for name in names}) == len(paths)
    for name in names:
        assert "/" not in name and "\n" not in name and not name.startswith(".")
        assert 0 < len(name.encode()) < 220


def test_an_overlay_of_a_large_image_has_a_line_that_can_be_seen() -> None:
    mask = np.zeros((600, 600), bool)
    mask[100:200, 100:200] = True
    shown = overlay(np.zeros((600, 600, 3), np.uint8), mask)
    assert (shown[150, 100:102] == OUTLINE).all() and (shown[150, 102] == 0).all()
