"""Which digits a study is on, with every kind of folder given, and with none."""

import gzip
import hashlib
import socket
import struct
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import MNIST  # type: ignore[import-untyped]

from dl4ia.data.class_folder import ClassFolder
from dl4ia.data.digit_source import digit_source
from dl4ia.data.embedded_digits import EmbeddedDigits
from dl4ia.data.idx_folder import FILES, IdxFolder
from dl4ia.errors import InputError


def write_idx_files(folder: Path, suffix: str = "") -> Path:
    """Six black images and their labels in each part."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = (
        struct.pack(">4I", 0x0803, 6, 10, 10) + bytes(600),
        struct.pack(">2I", 0x0801, 6) + bytes(range(6)),
    )
    for names in FILES.values():
        for name, content in zip(names, contents, strict=True):
            data = gzip.compress(content) if suffix else content
            (folder / f"{name}{suffix}").write_bytes(data)
    return folder


def write_class_folder(folder: Path) -> Path:
    for part in ("Train", "Test"):
        for name in ("cat", "dog"):
            (folder / part / name).mkdir(parents=True)
            for number in range(5):
                image = Image.fromarray(np.full((10, 10), number, np.uint8))
                image.save(folder / part / name / f"{number}.png")
    return folder


@pytest.fixture
def default(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{closed.getsockname()[1]}/"])


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The four files at 127.0.0.1."""
    folder = write_idx_files(tmp_path / "served", ".gz")
    files = sorted(folder.iterdir())
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    sums = [(file.name, hashlib.md5(file.read_bytes()).hexdigest()) for file in files]
    monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    monkeypatch.setattr(MNIST, "resources", sums)
    yield
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_folder_of_idx_files_is_read(tmp_path: Path, default: Path, cache: Path) -> None:
    source = digit_source(write_idx_files(tmp_path / "given/MNIST/raw"), default, cache)
    assert isinstance(source, IdxFolder)
    assert len(source.train()) == 6
    assert isinstance(digit_source(tmp_path / "given", default, cache), IdxFolder)
    assert isinstance(digit_source(tmp_path / "given", default, cache, "grey"), IdxFolder)
    with pytest.raises(InputError, match=r"--channels rgb: .*given has IDX files, which are grey"):
        digit_source(tmp_path / "given", default, cache, "rgb")
    assert not default.exists()


def test_a_folder_of_classes_is_read(tmp_path: Path, default: Path, cache: Path) -> None:
    source = digit_source(write_class_folder(tmp_path / "Pets"), default, cache)
    assert isinstance(source, ClassFolder)
    assert source.classes == ("cat", "dog")
    assert source.name == "pets"
    source.train()
    assert len(list(cache.iterdir())) == 1
    assert not default.exists()


def test_what_is_given_comes_before_the_default(tmp_path: Path, default: Path, cache: Path) -> None:
    write_idx_files(default)
    source = digit_source(write_class_folder(tmp_path / "Pets"), default, cache)
    assert source.name == "pets"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ([f"{number}.txt" for number in range(12)], "12 text files"),
        (["Test/0/1.png"], "folder 'Test'"),
        ([], "nothing"),
    ],
    ids=["texts", "no Train", "empty"],
)
def test_a_folder_of_neither_is_told(
    tmp_path: Path, default: Path, cache: Path, files: list[str], found: str
) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as raised:
        digit_source(folder, default, cache)
    message = str(raised.value)
    assert message.startswith(f"{folder}: no digits in it, but {found}; expected IDX files (train-")
    assert "images in Train/<class>/ and Test/<class>/" in message
    assert "give another folder" in message
    assert "\n" not in message
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_is_none_is_told(tmp_path: Path, default: Path, cache: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder; expected one with IDX files"):
        digit_source(tmp_path / "nowhere", default, cache)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: is not a folder; expected one with IDX files"):
        digit_source(tmp_path / "file", default, cache)
    assert not default.exists()


def test_a_given_folder_with_a_missing_file_is_told(
    tmp_path: Path, default: Path, cache: Path
) -> None:
    folder = write_idx_files(tmp_path / "given")
    (folder / FILES["test"][1]).unlink()
    with pytest.raises(InputError, match="t10k-labels-idx1-ubyte: no such file"):
        digit_source(folder, default, cache)


def test_the_default_folder_is_read_without_a_network(
    no_network: None, default: Path, cache: Path
) -> None:
    write_idx_files(default / "MNIST/raw")
    source = digit_source(None, default, cache)
    assert isinstance(source, IdxFolder)
    assert len(source.test()) == 6


def test_mnist_is_downloaded_once(
    network: None, default: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(digit_source(None, default, cache), IdxFolder)
    monkeypatch.setattr(MNIST, "mirrors", [])
    source = digit_source(None, default, cache)
    assert isinstance(source, IdxFolder)
    assert source.train().labels.tolist() == list(range(6))


def test_without_a_network_the_embedded_digits_are_taken(
    no_network: None, default: Path, cache: Path
) -> None:
    source = digit_source(None, default, cache)
    assert isinstance(source, EmbeddedDigits)
    assert not default.exists()
    assert not cache.exists()
    default.mkdir()
    (default / "notes.txt").touch()
    assert isinstance(digit_source(None, default, cache), EmbeddedDigits)
    assert [path.name for path in default.iterdir()] == ["notes.txt"]
