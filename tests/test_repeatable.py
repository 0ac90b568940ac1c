"""The same command in two folders: one worker on one machine repeats a study to the bit."""

from pathlib import Path

import optuna
import torch
from conftest import run_study, write_gland_folder
from optuna.trial import FrozenTrial

from dl4ia.search.trials import history_of
from dl4ia.selection.repeats import kept_repeats

FLAGS = ("--data", "Tiny Glands", "--trials", "24", "--epochs", "3", "--finalists", "2")
FLAGS += ("--device", "cpu")  # a GPU adds up in no fixed order


def told(trial: FrozenTrial) -> tuple[object, ...]:
    """All of a trial that does not depend on when and how fast it was run."""
    history = {
        name: values
        for name, values in history_of(trial).items()
        if name != "seconds" and not name.startswith("system/")
    }
    return trial.number, trial.state, trial.params, trial.value, trial.user_attrs["seed"], history


def test_the_same_seed_is_the_same_study(tmp_path: Path) -> None:
    studies = []
    for name in ("one", "two"):
        folder = tmp_path / name
        write_gland_folder(folder / "Tiny Glands")
        # Each from nothing, so that they share no state, and none of Python's random hashes.
        run_study(folder, "segmentation.py", *FLAGS, from_nothing=True)
        storage = f"sqlite:///{folder}/mlruns/optuna.db"
        studies.append(optuna.load_study(study_name="segmentation-tiny-glands", storage=storage))
    one, two = studies
    assert len(one.trials) == 24
    assert list(map(told, one.trials)) == list(map(told, two.trials))
    repeats = [
        {key: kept["history"]["val_dice"] for key, kept in kept_repeats(study).items()}
        for study in studies
    ]
    assert repeats[0] == repeats[1] and len(repeats[0]) >= 4
    winners = [study.user_attrs["winner"] for study in studies]
    assert winners[0]["trial"] == winners[1]["trial"]
    assert winners[0]["metrics"]["test_dice"] == winners[1]["metrics"]["test_dice"]
    weights = [
        torch.load(next((tmp_path / name).rglob("seed_0.pt")), weights_only=True)["weights"]
        for name in ("one", "two")
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
