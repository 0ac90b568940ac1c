"""A process's memory does not grow with its trials: no network, no history and no run is kept."""

import os
from pathlib import Path

import optuna
from conftest import run_study, write_gland_folder

from dl4ia.search.attributes import history_of

TRIALS = int(os.environ.get("DL4IA_SHORT_TRIALS", "75"))
MOST = 25  # megabytes; the networks of one third of the trials have 120


def test_memory_does_not_grow_with_trials(tmp_path: Path) -> None:
    write_gland_folder(tmp_path / "Tiny Glands")
    flags = ("--data", "Tiny Glands", "--trials", str(TRIALS), "--finalists", "0")
    run_study(tmp_path, "segmentation.py", *flags)
    storage = f"sqlite:///{tmp_path}/mlruns/optuna.db"
    study = optuna.load_study(study_name="segmentation-tiny-glands", storage=storage)
    used = [
        history["system/process_memory_megabytes"][-1]
        for trial in study.get_trials(deepcopy=False)
        if (history := history_of(trial))
    ]
    third = len(used) // 3  # by then every kind of network has been trained
    assert third >= 20
    assert max(used[2 * third :]) - max(used[third : 2 * third]) < MOST
