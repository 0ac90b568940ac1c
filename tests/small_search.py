"""A search whose trials take no time; `python small_search.py URL N DEADLY [SLOWNESS]` runs it.

DEADLY: how likely each of a trial's three steps is to kill the process.
"""

import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from dl4ia.search.loop import search
from dl4ia.search.storage import open_storage
from dl4ia.search.study import Identity, check_identity, open_study
from dl4ia.search.transactions import in_one_transaction, storage_of
from dl4ia.search.turns import Turns
from dl4ia.search_space import Point, Space, choice, real, sample

SPACE: Space = {
    "kind": choice("a", "b", doc="a choice"),
    "rate": real(0.0, 1.0, doc="a number"),
}
REPORT: dict[str, Point] = {"first": {"kind": "a", "rate": 0.5}}
REFERENCE: dict[str, Point] = {"second": {"kind": "b", "rate": 0.25}}
SEARCHED: Any = SimpleNamespace(
    SPACE=SPACE, REPORT_MODELS=REPORT, REFERENCE_MODELS=REFERENCE, REPORT_NOTE=""
)
IDENTITY = Identity("segmentation", "dice", "tiny", "d", {"image_shift": 0.0}, "s", "p", 9, 1, 0)

optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture
def storage(tmp_path: Path) -> optuna.storages.RDBStorage:
    return open_storage(f"sqlite:///{tmp_path / 'optuna.db'}")


def begin(storage: optuna.storages.RDBStorage, identity: Identity = IDENTITY) -> optuna.Study:
    check_identity(str(storage.url), "study", identity)
    return open_study(storage, "study", identity, SEARCHED)


def objective(trial: optuna.Trial) -> float:
    """The rate."""
    with in_one_transaction(trial):
        return float(sample(SPACE, trial)["rate"])


def run(
    study: optuna.Study, trials: int, function: Callable[[optuna.Trial], float] = objective
) -> list[int]:
    """The numbers of the trials that this process has run."""
    seen: list[int] = []
    turns = Turns(str(storage_of(study).url), study.study_name)
    shown: Any = function
    search(study, shown, trials, None, turns, lambda trial: seen.append(trial.number))
    return seen


def work(trial: optuna.Trial) -> float:
    """Reports over a moment, as a training would; now and then the process dies instead."""
    value = objective(trial)
    for step in range(3):
        time.sleep((0.3 + 0.7 * random.random()) * 0.01 * SLOWNESS)
        trial.report(value, step)
        if random.random() < DEADLY:
            os.kill(os.getpid(), 9)
    return value


if __name__ == "__main__":
    url, trials, DEADLY = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    SLOWNESS = float(sys.argv[4]) if len(sys.argv) > 4 else 1.0
    print(len(run(begin(open_storage(url)), trials, work)))
