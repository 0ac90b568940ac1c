"""A process's memory does not grow with its trials: no network, no history and no run is kept."""

import json
import os
from pathlib import Path

import optuna
from conftest import run_study, write_gland_folder

from dl4ia.search.trials import history_of
from search_spaces.segmentation import REFERENCE_MODELS

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
