"""What several test files share: small data and studies, refused input, and MLflow's runs."""

import os
import runpy
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from commands import run_command
from PIL import Image
from xdist.scheduler import LoadScopeScheduling

from dl4ia.command_line.flags import OneLineParser, parse
from dl4ia.data.glands import draw_glands
from dl4ia.environment import tune_process
from dl4ia.errors import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from xdist.remote import Producer

tune_process()  # before torch is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")  # there are several test processes
ROOT = Path(__file__).parent.parent


# First: of files that take long the last would keep one process busy while the others have ended.
LONGEST_FILES = (
    "test_killed",
    "test_cluster",
    "test_mlflow_away",
    "test_console_results",
    "test_whole_study",
    "test_test_lock",
    "test_postgresql",
    "test_whole_classification",
    "test_jobs",
    "test_disk",
    "test_repeatable",
    "test_docs",
    "test_memory",
    "test_replication",
)


# Together, so that the studies below that they look at are made once.
LOOKING_FILES = (
    "test_console_best",
    "test_console_predict",
    "test_console_results",
    "test_console_sync",
    "test_console_ui",
    "test_docs",
    "test_serving",
)
# Apart from their files, which would keep one process busy for too long.
LONGEST_TESTS = (
    "test_nothing_is_lost",
    "test_a_worker_that_dies_is_replaced",
    "test_own_data_from_the_folder_to_the_predictions",
    "test_trials_go_on_and_are_written_later",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files before the others; within a file the order stays."""
    order = {name: number for number, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


class Together(LoadScopeScheduling):
    """What of the tests one process runs after the other: whole files, but for the above."""

    def _split_scope(self, nodeid: str) -> str:
        path, _, test = nodeid.partition("::")
        if test.partition("[")[0] in LONGEST_TESTS:
            return nodeid
        return "looking" if Path(path).stem in LOOKING_FILES else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: "Producer") -> Together | None:
    """Called by pytest-xdist; None: its own."""
    return Together(config, log) if config.getvalue("dist") == "loadscope" else None


def write_gland_folder(folder: Path, train: int = 10, test: int = 6, size: int = 32) -> Path:
    """Drawn glands as the course hands them out: Train/ and Test/ with PNG pairs."""
    for name, part, count in (("Train", "train", train), ("Test", "test", test)):
        drawn = draw_glands(part, size=size)  # type: ignore[arg-type]
        (folder / name).mkdir(parents=True)
        for number in range(count):
            blue = np.zeros((1, size, size), np.uint8)
            pixels = np.concatenate([drawn.images[number], blue]).transpose(1, 2, 0)
            Image.fromarray(pixels).save(folder / name / f"image_{number + 1:02d}.png")
            mask = Image.fromarray(drawn.masks[number] * 255)
            mask.save(folder / name / f"label_{number + 1:02d}.png")
    return folder


CLASSES = ("nought", "one, or I", "two")


def write_class_folder(folder: Path, train: int = 8, test: int = 4) -> Path:
    """The embedded digits 0 to 2 in Train/<class>/ and Test/<class>/, so many images a class."""
    from dl4ia.data.embedded_digits import EmbeddedDigits

    dataset = EmbeddedDigits().train()
    for label, name in enumerate(CLASSES):
        indices = (dataset.labels == label).nonzero()[:, 0].tolist()
        for number, index in enumerate(indices[: train + test]):
            place = folder / ("Train" if number < train else "Test") / name
            place.mkdir(parents=True, exist_ok=True)
            pixels = (255 * dataset.images[index, 0]).round().byte().numpy()
            Image.fromarray(pixels).save(place / f"{number:03d}.png")
    return folder


def write_idx_files(folder: Path, train: int = 60, test: int = 20) -> Path:
    """The first embedded digits, as MNIST's four files."""
    folder.mkdir(parents=True)
    from dl4ia.data.embedded_digits import EmbeddedDigits
    from dl4ia.data.idx_folder import FILES

    dataset = EmbeddedDigits().train()
    pixels = (255 * dataset.images[:, 0]).round().byte().numpy()
    for part, rows in (("train", slice(train)), ("test", slice(train, train + test))):
        images, labels = pixels[rows], dataset.labels[rows].byte().numpy()
        headers = struct.pack(">4I", 0x0803, *images.shape), struct.pack(">2I", 0x0801, len(labels))
        for name, header, content in zip(FILES[part], headers, (images, labels), strict=True):
            (folder / name).write_bytes(header + content.tobytes())
    return folder


def run_study(folder: Path, script: str, *flags: str, from_nothing: bool = False) -> Path:
    """The shortest whole study with a winner, run in `folder`: of its named points.

    from_nothing: as a user starts it, and not forked.
    """
    words = ["--trials", "10", "--epochs", "1", "--finalists", "1", "--repeats", "2"]
    words += ["--seeds", "1", "--workers", "1"]  # several are not worth their start
    command = [sys.executable, str(ROOT / "studies" / script), *words, *flags]
    if from_nothing:
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    else:
        ended = run_command(command, folder)
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture(scope="session")
def gland_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with glands, moved by half a pixel, and a study of them."""
    folder = tmp_path_factory.mktemp("glands")
    write_gland_folder(folder / "Tiny Glands")
    flags = ("--data", "Tiny Glands", "--image-shift", "0.5", "--retraining-epochs", "30")
    return run_study(folder, "segmentation.py", *flags)


@pytest.fixture(scope="session")
def digit_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with digits of three classes, and a study of them."""
    folder = tmp_path_factory.mktemp("digits")
    write_class_folder(folder / "Three digits")
    flags = ("--data", "Three digits", "--retraining-epochs", "5")
    return run_study(folder, "classification.py", *flags)


def dl4ia(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """The console command, run in `folder`."""
    return run_command([sys.executable, "-m", "dl4ia.console.main", *words], folder)


def refuses(script: Path, parser: OneLineParser, words: list[str], said: str) -> None:
    """A study that ends with an error of one line, which says `said`."""
    study = runpy.run_path(str(script))["study"]
    with pytest.raises(InputError, match=said) as refused:
        study(*parse(parser, words))
    assert "\n" not in str(refused.value)


def runs_of(client: "MlflowClient", experiment: str, kind: str) -> "list[Run]":
    """Its runs of a `dl4ia.kind`."""
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id], f"tags.`dl4ia.kind` = '{kind}'"))


@pytest.fixture
def gland_folder(tmp_path: Path) -> Path:
    return write_gland_folder(tmp_path / "Tiny Glands")
