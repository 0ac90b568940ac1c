"""IDX files are read right, wherever they lie; bad ones are told; a download is whole or none."""

import contextlib
import gzip
import hashlib
import json
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import MNIST  # type: ignore[import-untyped]

from dl4ia.data import mnist_download
from dl4ia.data.idx_folder import FILES, IdxFolder
from dl4ia.data.images import source_name
from dl4ia.data.mnist_download import UNFINISHED, download_mnist
from dl4ia.errors import InputError

REAL = Path(__file__).parents[2] / "shared" / "data"
COUNTS = {"train": 23, "test": 11}
HEIGHT, WIDTH = 28, 20
IMAGES, LABELS = FILES["train"]
TEST_IMAGES, TEST_LABELS = FILES["test"]

Damage = Callable[[Path], object]


def pixels(part: str, height: int = HEIGHT) -> np.ndarray:
    """(N, H, W) random bytes."""
    return np.random.default_rng(COUNTS[part]).integers(
        0, 256, (COUNTS[part], height, WIDTH), np.uint8
    )


def numbers(part: str) -> np.ndarray:
    return np.arange(COUNTS[part], dtype=np.uint8) % 10


def idx(content: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes."""
    header = struct.pack(f">{1 + content.ndim}I", 0x0800 + content.ndim, *content.shape)
    return header + content.tobytes()


def four_files() -> dict[str, bytes]:
    return {
        name: idx(content)
        for part in COUNTS
        for name, content in zip(FILES[part], (pixels(part), numbers(part)), strict=True)
    }


def write_files(place: Path, compressed: bool = False) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    for name, content in four_files().items():
        if compressed:
            (place / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (place / name).write_bytes(content)
    return place


def everything(folder: Path) -> list[tuple[str, int]]:
    """Names and sizes of whatever is in a folder."""
    return sorted((str(path), path.stat().st_size) for path in folder.rglob("*"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_files(tmp_path)


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("place", ["MNIST/raw", "raw", "."])
def test_files_are_read_from_every_place(tmp_path: Path, place: str, compressed: bool) -> None:
    write_files(tmp_path / place, compressed)
    before = everything(tmp_path)
    assert IdxFolder.find(tmp_path) == tmp_path / place
    source = IdxFolder(tmp_path)
    for part, dataset in (("train", source.train()), ("test", source.test())):
        assert dataset.images.shape == (COUNTS[part], 1, HEIGHT, WIDTH)
        assert dataset.images.dtype == torch.float32
        assert dataset.labels.dtype == torch.int64
        np.testing.assert_allclose(dataset.images[:, 0].numpy(), pixels(part) / 255, atol=1e-7)
        np.testing.assert_array_equal(dataset.labels.numpy(), numbers(part))
        assert dataset.names[7] == f"{part}_00007"
        assert len(dataset) == len(set(dataset.names)) == COUNTS[part]
    assert everything(tmp_path) == before


def test_name_and_description(folder: Path) -> None:
    source = IdxFolder(folder)
    assert source.name == source_name(folder)  # digits in MNIST's format, and not MNIST
    assert source.preparation == {}
    assert source.classes == tuple("0123456789")
    assert source.description == f"{folder}: 23 training images of 20x28 pixels, IDX files"


def test_the_plain_file_is_preferred_to_the_gz(folder: Path) -> None:
    expected = IdxFolder(folder).train().fingerprint()
    (folder / f"{IMAGES}.gz").write_bytes(b"never read")
    assert IdxFolder(folder).train().fingerprint() == expected


def test_plain_and_compressed_files_may_be_mixed(folder: Path) -> None:
    content = (folder / IMAGES).read_bytes()
    (folder / IMAGES).unlink()
    (folder / f"{IMAGES}.gz").write_bytes(gzip.compress(content))
    assert len(IdxFolder(folder).train()) == COUNTS["train"]


def test_the_place_with_the_most_files_counts(tmp_path: Path) -> None:
    write_files(tmp_path / "raw")
    (tmp_path / "MNIST/raw").mkdir(parents=True)
    (tmp_path / "MNIST/raw" / IMAGES).write_bytes(b"what a stopped download left")
    assert IdxFolder.find(tmp_path) == tmp_path / "raw"


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no digits")
    assert IdxFolder.find(tmp_path) is None
    assert IdxFolder.find(tmp_path / "nowhere") is None
    assert IdxFolder.find(tmp_path / "notes.txt") is None
    with pytest.raises(InputError, match="no IDX file there; expected train-images.*give another"):
        IdxFolder(tmp_path)


def replace(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def cut(name: str, change: int) -> Damage:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        replace(name, content[:change] if change < 0 else content + bytes(change))(folder)

    return damage


def compress(name: str, change: Callable[[bytes], bytes]) -> Damage:
    def damage(folder: Path) -> None:
        content = gzip.compress((folder / name).read_bytes())
        (folder / name).unlink()
        (folder / f"{name}.gz").write_bytes(change(content))

    return damage


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    """Its sum is wrong."""
    return content[:-8] + bytes([content[-8] ^ 1]) + content[-7:]


SIZE = 16 + COUNTS["train"] * HEIGHT * WIDTH
TOO_MANY = np.append(numbers("train")[1:], 26).astype(np.uint8)
HUGE = struct.pack(">4I", 0x0803, *[2**32 - 1] * 3)

DAMAGES: dict[str, tuple[Damage, str, str]] = {
    "missing labels": (lambda folder: (folder / LABELS).unlink(), LABELS, "no such file"),
    "missing test images": (
        lambda folder: (folder / TEST_IMAGES).unlink(),
        TEST_IMAGES,
        "expected all four files",
    ),
    "labels as images": (
        replace(IMAGES, idx(numbers("train"))),
        IMAGES,
        "begins with 0x00000801; expected 0x00000803",
    ),
    "images as labels": (
        replace(LABELS, idx(pixels("train"))),
        LABELS,
        "begins with 0x00000803; expected 0x00000801",
    ),
    "a web page": (replace(IMAGES, b"<html>" * 9), IMAGES, "begins with 0x3c68746d; expected"),
    "empty": (replace(IMAGES, b""), IMAGES, "it is empty; expected an IDX file of images"),
    "part of a header": (replace(IMAGES, bytes(9)), IMAGES, "only 9 bytes; expected"),
    "truncated": (cut(IMAGES, -1), IMAGES, f"only {SIZE - 1} bytes; expected {SIZE}"),
    "truncated labels": (cut(LABELS, -5), LABELS, "only 26 bytes; expected 31"),
    "too long": (cut(IMAGES, 1), IMAGES, f"more than {SIZE} bytes; expected {SIZE}"),
    "a size that is a lie": (replace(IMAGES, HUGE), LABELS, "23 labels; expected 4294967295"),
    "fewer labels": (
        replace(LABELS, idx(numbers("train")[:-2])),
        LABELS,
        "21 labels; expected 23, one for each image",
    ),
    "letters": (replace(LABELS, idx(TOO_MANY)), LABELS, "label 26 at position 22; expected 0 to 9"),
    "no images": (replace(IMAGES, idx(pixels("train")[:0])), IMAGES, "says 0 x 28 x 20 images"),
    "small images": (
        replace(IMAGES, idx(pixels("train")[:, :7])),
        IMAGES,
        "20x7 pixels; expected at least 8",
    ),
    "an empty gz": (compress(IMAGES, lambda _: b""), f"{IMAGES}.gz", "it is empty"),
    "a gz that is none": (
        compress(IMAGES, lambda _: b"none" * 99),
        f"{IMAGES}.gz",
        "cannot be read (Not a gzipped file",
    ),
    "half a gz": (compress(IMAGES, half), f"{IMAGES}.gz", "expected a whole gzip file"),
    "a gz of half": (
        lambda folder: (cut(IMAGES, -99)(folder), compress(IMAGES, lambda gz: gz)(folder)),
        f"{IMAGES}.gz",
        f"only {SIZE - 99} bytes; expected {SIZE}",
    ),
    "a gz with a wrong sum": (compress(IMAGES, flipped), f"{IMAGES}.gz", "CRC check failed"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_is_wrong_is_told_in_one_line_that_names_the_file(folder: Path, kind: str) -> None:
    damage, file, words = DAMAGES[kind]
    damage(folder)
    before = everything(folder)
    with pytest.raises(InputError) as raised:
        IdxFolder(folder).train()
    message = str(raised.value)
    assert message.startswith(f"{folder / file}: ")
    assert words in message
    assert "\n" not in message
    assert everything(folder) == before


def test_a_broken_plain_file_beside_a_gz_may_be_removed(folder: Path) -> None:
    (folder / f"{IMAGES}.gz").write_bytes(gzip.compress((folder / IMAGES).read_bytes()))
    cut(IMAGES, -1)(folder)
    with pytest.raises(InputError, match=f"remove it, and {IMAGES}.gz beside it is read"):
        IdxFolder(folder).train()
    (folder / IMAGES).unlink()
    assert len(IdxFolder(folder).train()) == COUNTS["train"]


def test_too_few_training_images_are_told(folder: Path) -> None:
    replace(IMAGES, idx(pixels("train")[:4]))(folder)
    replace(LABELS, idx(numbers("train")[:4]))(folder)
    with pytest.raises(InputError, match="4 training images; expected at least 5"):
        IdxFolder(folder)


def test_training_opens_no_test_file(folder: Path) -> None:
    for name in FILES["test"]:
        (folder / name).write_bytes(b"this is not an IDX file")
    source = IdxFolder(folder)
    assert len(source.train()) == COUNTS["train"]
    with pytest.raises(InputError, match=f"{TEST_IMAGES}: begins with 0x74686973"):
        source.test()


def test_test_images_have_the_training_images_size(folder: Path) -> None:
    replace(TEST_IMAGES, idx(pixels("test", 30)))(folder)
    with pytest.raises(InputError, match=f"{TEST_IMAGES}: .*20x30 pixels; expected 20x28 as in"):
        IdxFolder(folder).test()


def test_the_real_mnist_is_read() -> None:
    if IdxFolder.find(REAL) is None:
        pytest.skip(f"MNIST is not at {REAL}")
    source = IdxFolder(REAL)
    train, test = source.train(), source.test()
    for dataset, count, ones in ((train, 60_000, 6742), (test, 10_000, 1135)):
        assert dataset.images.shape == (count, 1, 28, 28)
        counts = dataset.labels.bincount()
        assert len(counts) == 10
        assert counts.sum() == count
        assert counts[1] == ones
    assert train.images.mean().item() == pytest.approx(0.1307, abs=1e-4)
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]


class Server:
    """Files at 127.0.0.1, over a real connection; `cut` ends each transfer in the middle."""

    def __init__(self) -> None:
        self.files = {f"/{name}.gz": gzip.compress(data) for name, data in four_files().items()}
        self.cut = self.stall = False
        self.stop_stalling = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = outer.files[self.path]
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                # torchvision asks for a redirection first and reads nothing of the answer.
                with contextlib.suppress(ConnectionError):
                    self.end_headers()
                    self.wfile.write(half(content))
                    if "labels" in self.path and outer.stall:
                        outer.stop_stalling.wait(30)
                    if not outer.cut:
                        self.wfile.write(content[len(content) // 2 :])

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/"
        self.resources = [
            (path[1:], hashlib.md5(content).hexdigest()) for path, content in self.files.items()
        ]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.server.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setattr(MNIST, "mirrors", [server.address])
    monkeypatch.setattr(MNIST, "resources", server.resources)
    yield server
    server.stop_stalling.set()
    server.server.shutdown()
    thread.join()
    server.server.server_close()


def test_a_download_is_read(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    assert download_mnist(folder) is True
    assert IdxFolder.find(folder) == folder / "MNIST/raw"
    np.testing.assert_array_equal(IdxFolder(folder).test().labels.numpy(), numbers("test"))
    assert [path.name for path in folder.iterdir()] == ["MNIST"]
    assert capfd.readouterr() == ("", "")


def nobody_listens(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{closed.getsockname()[1]}/"])


def closes_in_the_middle(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.cut = True


def sends_something_else(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a hotel wants a password first; only the last file, so that three are whole."""
    server.files[f"/{TEST_LABELS}.gz"] = b"<html>Welcome!</html>"


def stops_answering(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.stall = True
    monkeypatch.setattr(mnist_download, "TIMEOUT", 0.2)


@pytest.mark.parametrize(
    "fault", [nobody_listens, closes_in_the_middle, sends_something_else, stops_answering]
)
@pytest.mark.parametrize("before", ["no folder", "an empty folder", "a folder with a file"])
def test_a_failed_download_leaves_nothing(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    fault: Callable[[Server, pytest.MonkeyPatch], None],
    before: str,
) -> None:
    folder = tmp_path / "data"
    if before != "no folder":
        folder.mkdir()
    if before == "a folder with a file":
        (folder / "notes.txt").write_text("mine")
    fault(server, monkeypatch)
    left = everything(tmp_path)
    assert download_mnist(folder) is False
    assert everything(tmp_path) == left
    assert socket.getdefaulttimeout() is None
    assert capfd.readouterr() == ("", "")


def test_a_folder_that_cannot_be_written_is_no_network(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    assert download_mnist(tmp_path / "data") is False
    assert (tmp_path / "data").read_text() == "a file"


def test_whoever_is_slower_takes_the_others_files(server: Server, tmp_path: Path) -> None:
    write_files(tmp_path / "MNIST/raw")
    left = everything(tmp_path)
    assert download_mnist(tmp_path) is True
    assert everything(tmp_path) == left


KILLED = """
import json, sys
from pathlib import Path
from torchvision.datasets import MNIST
from dl4ia.data.mnist_download import download_mnist
MNIST.mirrors, MNIST.resources = [sys.argv[1]], json.loads(sys.argv[2])
download_mnist(Path(sys.argv[3]))
"""


def test_a_killed_download_leaves_nothing_that_a_later_run_takes(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    server.stall = True  # with the images downloaded and half of the labels
    words = [sys.executable, "-c", KILLED, server.address, json.dumps(server.resources)]
    with subprocess.Popen([*words, str(folder)]) as process:
        while not list(folder.rglob(f"{LABELS}.gz")) and process.poll() is None:
            time.sleep(0.01)
        (unfinished,) = folder.iterdir()
        alive = tmp_path / "alive"
        shutil.copytree(folder, alive)  # what another run sees meanwhile
        with monkeypatch.context() as patch:
            nobody_listens(server, patch)
            assert download_mnist(alive) is False
        assert list(alive.iterdir()) == [alive / unfinished.name]
        process.kill()
    assert unfinished.name == f"{UNFINISHED}{process.pid}"
    assert (unfinished / "MNIST/raw" / IMAGES).is_file()
    assert IdxFolder.find(folder) is None

    with monkeypatch.context() as patch:
        nobody_listens(server, patch)
        assert download_mnist(alive) is False
    assert not alive.exists()
    server.stall = False
    assert download_mnist(folder) is True
    assert [path.name for path in folder.iterdir()] == ["MNIST"]
