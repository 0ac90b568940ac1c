"""Bringing MNIST by torchvision, all of it or nothing."""

import contextlib
import io
import os
import shutil
import socket
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import psutil

from dl4ia.data.idx_folder import PLACES, IdxFolder

TIMEOUT = 10.0  # seconds without an answer: there is no network
UNFINISHED = ".mnist-download-"  # and the number of the process that downloads


def download_mnist(folder: Path) -> bool:
    """Download the four files to `folder`/MNIST/raw; False where there is no network.

    torchvision verifies their MD5 sums in a folder beside, which is renamed once it is whole: a
    download that fails or is killed leaves nothing that looks like data, and no empty folder.
    """
    leave = folder.is_dir() and not _remove_abandoned(folder)
    unfinished = folder / f"{UNFINISHED}{os.getpid()}"
    destination = folder / PLACES[0]
    try:
        unfinished.mkdir(parents=True)
        _download(unfinished)
        destination.parent.mkdir(exist_ok=True)
        (unfinished / PLACES[0]).rename(destination)
        leave = True
    except (OSError, RuntimeError, HTTPException):  # torchvision's, the network's, the disk's
        # Another process may have been faster: its folder cannot be renamed onto.
        return IdxFolder.find(folder) is not None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not leave:
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()
    return True


def _download(folder: Path) -> None:
    with _quiet(), _socket_timeout(TIMEOUT):
        from torchvision.datasets import MNIST  # type: ignore[import-untyped]  # slow to import

        MNIST(root=folder, download=True)


def _remove_abandoned(folder: Path) -> bool:
    """Remove what killed downloads left; whether there was any."""
    found = False
    for path in folder.glob(f"{UNFINISHED}*"):
        number = path.name.removeprefix(UNFINISHED)
        # A number is given out again, in a container often the same one.
        if number.isdecimal() and (
            int(number) == os.getpid() or not psutil.pid_exists(int(number))
        ):
            shutil.rmtree(path, ignore_errors=True)
            found = True
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars in the terminal."""
    nowhere = io.StringIO()
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
