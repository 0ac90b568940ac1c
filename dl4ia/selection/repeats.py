"""Points trained again, on splits and seeds that the search never used, as far as there are others.

The same splits and seeds for every point, so that points are compared in pairs. What was trained is
kept in the study and is not trained again.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import optuna

from dl4ia.data.splits import DEFAULT_PARTS, Split, make_splits
from dl4ia.errors import OutOfMemory, TrialFailure
from dl4ia.search.objective import Objective
from dl4ia.search.seeds import derive_seed
from dl4ia.workers.jobs import Job

MOST_DRAWS = 20  # of a partition, in search of one that is fresh
KEPT = "repeat "  # how a study's attributes begin that hold a training


@dataclass(frozen=True)
class Repeats:
    """Where points are trained again: each repeat is one split and one seed."""

    study: optuna.Study
    objective: Objective  # its task, data, length and device; its own splits are the search's
    splits: tuple[Split, ...]  # of all repeats, by their numbers
    numbers: range  # those that are in use
    train_ahead: Callable[[Sequence[Job]], object] = lambda jobs: None  # several at once

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def held_out(self) -> float:
        """Size of the validation parts over that of the training parts."""
        validation = sum(len(split.validation) for split in self._splits)
        return validation / sum(len(split.train) for split in self._splits)

    @property
    def step(self) -> float:
        """What one image more or less changes a value by; 0 where the metric is no share of images.

        Of the smallest validation part, whose step is the largest.
        """
        if not self.objective.task.counts_images:
            return 0.0
        return 1 / min(len(split.validation) for split in self._splits)

    @property
    def reused(self) -> int:
        """How many of the splits are the search's own, or of the repeats that come before these.

        Of very few patients there are no others.
        """
        earlier = [*self.objective.splits, *self.splits[: self.numbers.start]]
        known = {frozenset(split.validation) for split in earlier}
        return sum(frozenset(split.validation) in known for split in self._splits)

    @property
    def _splits(self) -> list[Split]:
        return [self.splits[number] for number in self.numbers]

    def prepare(self, points: Mapping[str, Mapping[str, Any]], numbers: Iterable[int]) -> None:
        """Whatever is missing of `points`, by their labels, on repeats `numbers`: train it ahead.

        Each job has what `value` is then asked for.
        """
        kept = kept_repeats(self.study)
        jobs = [
            {"kind": "repeat", "point": dict(point), "number": number, "label": label}
            for number in numbers
            for label, point in points.items()
            if _key(point, number) not in kept
        ]
        self.train_ahead(jobs)

    def value(
        self, point: Mapping[str, Any], number: int, label: str, after_epoch: Callable[[], object]
    ) -> float:
        """The validation metric of `point` at the end of training on repeat `number`.

        label: what MLflow's run is called by. Raises TrialFailure as `fit` does, from what is kept
        as well; that the memory ran out is not kept.
        """
        known = self.look_up()(point, number)
        if known is not None:
            return known
        kept = self._train(point, number, label, after_epoch)
        self._keep(point, number, kept)
        return self._value_of(kept)

    def look_up(self) -> Callable[[Mapping[str, Any], int], float | None]:
        """What is kept by now, read once: gives `value`, or None of what is still to be trained."""
        all_kept = kept_repeats(self.study)

        def known(point: Mapping[str, Any], number: int) -> float | None:
            kept = all_kept.get(_key(point, number))
            return None if kept is None else self._value_of(kept)

        return known

    def train(self, point: Mapping[str, Any], number: int, label: str) -> None:
        """For `value`, ahead of it and beside others; what fails so is not kept.

        It may have failed for want of memory, which it may have enough of alone.
        """
        kept = self._train(point, number, label, lambda: None)
        if "failure" in kept:
            raise TrialFailure(kept["failure"])
        self._keep(point, number, kept)

    def _value_of(self, kept: Mapping[str, Any]) -> float:
        if "failure" in kept:
            raise TrialFailure(kept["failure"])
        return float(kept["history"][f"val_{self.objective.task.metric}"][-1])

    def _keep(self, point: Mapping[str, Any], number: int, kept: Mapping[str, Any]) -> None:
        study = self.study
        study._storage.set_study_system_attr(study._study_id, _key(point, number), dict(kept))

    def _train(
        self, point: Mapping[str, Any], number: int, label: str, after_epoch: Callable[[], object]
    ) -> dict[str, Any]:
        objective = replace(self.objective, splits=(self.splits[number],))
        seed = repeat_seed(self.objective.seed, number)
        kept: dict[str, Any] = {
            "point": dict(point),
            "repeat": number,
            "seed": seed,
            "label": label,
            "environment": dict(self.objective.environment),
            "start": datetime.now().isoformat(),
        }
        history: dict[str, list[float]] = {}
        try:
            for result in objective.results(point, seed):
                for name, value in result.items():
                    history.setdefault(name, []).append(value)
                after_epoch()
        except OutOfMemory:  # to be tried again at another start
            raise
        except TrialFailure as failure:
            kept["failure"] = str(failure)
        return kept | {"history": history, "end": datetime.now().isoformat()}


def kept_repeats(study: optuna.Study) -> dict[str, dict[str, Any]]:
    """All that was trained on repeats, by its key."""
    hidden = study._storage.get_study_system_attrs(study._study_id)
    # Earlier studies have them among their user attributes, where the dashboard shows them all.
    known = study.user_attrs | hidden
    return {key: kept for key, kept in known.items() if key.startswith(KEPT)}


def repeat_environments(study: optuna.Study) -> list[dict[str, str]]:
    """What each of them was made with."""
    return [kept["environment"] for kept in kept_repeats(study).values()]


def make_repeats(
    study: optuna.Study,
    objective: Objective,
    numbers: range,
    groups: tuple[str, ...] | None,
) -> Repeats:
    """The repeats of those numbers: folds of a fresh partition of the training data, and of more.

    Five folds, so that every five repeats validate each image once; as many as there are groups
    where these are fewer. A repeat stays the same where others are asked for.
    """
    strata = objective.task.strata(objective.dataset)
    parts = DEFAULT_PARTS if groups is None else min(DEFAULT_PARTS, len(set(groups)))
    splits = list(objective.splits)
    searched = len(splits)
    for partition in range(math.ceil(numbers.stop / parts)):
        draws = [(partition,), *((partition, draw) for draw in range(1, MOST_DRAWS))]
        seeds = [derive_seed(objective.seed, "repeats", *draw) for draw in draws]
        splits += _freshest(
            splits, (make_splits(strata, parts, seed, groups, evenly=False) for seed in seeds)
        )
    fresh = splits[searched:][: numbers.stop]
    return Repeats(study, objective, tuple(fresh), numbers)


def _freshest(known: Sequence[Split], partitions: Iterable[tuple[Split, ...]]) -> tuple[Split, ...]:
    """The first with the fewest parts that are validated already, at best with none."""
    seen = {frozenset(split.validation) for split in known}
    found: dict[int, tuple[Split, ...]] = {}
    for folds in partitions:
        again = sum(frozenset(split.validation) in seen for split in folds)
        found.setdefault(again, folds)
        if again == 0:
            break
    return found[min(found)]


def repeat_seed(study_seed: int, number: int) -> int:
    """The seed of every point's training on repeat `number`."""
    return derive_seed(study_seed, "repeat", number)


def _key(point: Mapping[str, Any], number: int) -> str:
    digest = hashlib.sha256(json.dumps(dict(point), sort_keys=True).encode()).hexdigest()[:12]
    return f"{KEPT}{number} of {digest}"
