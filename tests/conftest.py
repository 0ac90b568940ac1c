"""What several test files share: a small gland folder, refused input, and MLflow's runs."""

import runpy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from dl4ia.command_line import OneLineParser, parse
from dl4ia.data.glands import draw_glands
from dl4ia.environment import tune_process
from dl4ia.errors import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

tune_process()  # before torch is imported


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
