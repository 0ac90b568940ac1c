"""A process's memory does not grow with its trials: no network, no history and no run is kept."""

import json
import os
from pathlib import Path

import optuna
import torch
from conftest import run_study, write_gland_folder
from torch import Tensor

from dl4ia.data.dataset import Dataset
from dl4ia.search.trials import history_of
from dl4ia.tasks.segmentation import SegmentationTask
from dl4ia.training.steps import BYTES_A_PIXEL
from search_spaces.segmentation import REFERENCE_MODELS, REPORT_MODELS

TRIALS = int(os.environ.get("DL4IA_SHORT_TRIALS", "75"))
MOST = 25  # megabytes; the networks of one third of the trials have 120


def largest_points() -> list[dict[str, object]]:
    """What needs most memory: each architecture at its widest and deepest, all images at once."""
    widest = {"base_width": 24, "depth": 5, "batch_size": "full"}
    unet = REFERENCE_MODELS["modern_unet"] | widest
    others = {key: value for key, value in unet.items() if key != "convolutions"}
    return [
        unet,
        unet | {"architecture": "encoder_decoder"},
        others | {"architecture": "resnet", "residual": True},
        others | {"architecture": "fcn", "report_rotations": True},
    ]


def test_memory_does_not_grow_with_trials(tmp_path: Path) -> None:
    write_gland_folder(tmp_path / "Tiny Glands")
    (tmp_path / "largest.json").write_text(json.dumps(largest_points()))
    flags = ("--data", "Tiny Glands", "--trials", str(TRIALS), "--finalists", "0",
             "--points", "largest.json")  # fmt: skip
    run_study(tmp_path, "segmentation.py", *flags)
    storage = f"sqlite:///{tmp_path}/mlruns/optuna.db"
    study = optuna.load_study(study_name="segmentation-tiny-glands", storage=storage)
    used = [
        history["system/process_memory_megabytes"][-1]
        for trial in study.get_trials(deepcopy=False)
        if (history := history_of(trial))
    ]
    third = len(used) // 3  # by then the largest networks have been trained, of each kind
    assert third >= 20
    assert max(used[2 * third :]) - max(used[third : 2 * third]) < MOST


def test_a_gpus_part_of_a_batch_fits_into_its_memory() -> None:
    """What networks keep for the way back is at most half of what a pixel may take."""
    images = torch.rand(4, 2, 64, 64)
    data = Dataset(images, torch.ones(4, 64, 64).long(), tuple("abcd"))
    points = [*largest_points(), *REPORT_MODELS.values(), *REFERENCE_MODELS.values()]
    points += [point | {"dropout": 0.1, "normalization": "batch"} for point in points]
    needs = []
    for point in points:
        kept: dict[int, int] = {}

        def note(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        model = SegmentationTask().build(point, data).train()
        weights = {each.untyped_storage().data_ptr() for each in model.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            logits = model(images)
            torch.nn.functional.cross_entropy(logits, data.labels)
        needs.append(sum(size for place, size in kept.items() if place not in weights))
    per_pixel = max(needs) / images[:, 0].numel()
    assert BYTES_A_PIXEL / 4 < per_pixel < BYTES_A_PIXEL / 2, per_pixel
