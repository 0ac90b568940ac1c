"""The only file that reads a test set.

A study opens it once: the opening is written into the study before a test file is read, and
another one needs the user's word and is counted. Another study of the same images is free to open
them: how often such in its database have done so before is written down with it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import optuna

from dl4ia.data.dataset import Dataset, Source
from dl4ia.errors import InputError
from dl4ia.text import plural


@dataclass(frozen=True)
class Candidate:
    """What a test set is opened for: a trial, retrained from so many seeds over so many epochs."""

    trial: int
    seeds: int
    epochs: int

    def __str__(self) -> str:
        length = f"{plural(self.seeds, 'seed')}, {plural(self.epochs, 'epoch')}"
        return f"trial {self.trial} ({length})"


def check_test_lock(study: optuna.Study, candidate: Candidate, again: bool) -> None:
    """Raise InputError where the test set was opened for anything else, unless `again`."""
    openings = study.user_attrs.get("test_openings", [])
    if openings and _candidate(openings[-1]) != candidate and not again:
        raise InputError(
            f"study {study.study_name!r}: the test set was opened on {openings[-1]['when']} for "
            f"{_candidate(openings[-1])}, and now {candidate} would be scored, which makes the "
            "test set part of the search: add --reopen-test to do so, and to have it counted"
        )


def open_test_set(
    study: optuna.Study, source: Source, candidate: Candidate, environment: Mapping[str, str]
) -> Dataset:
    """Read the test set, after writing into the study when, by which commit and for which trial.

    An opening that was cut off before its score was written goes on, and is not a second one.
    """
    openings = study.user_attrs.get("test_openings", [])
    if not openings or _candidate(openings[-1]) != candidate:
        opening = {
            "when": datetime.now().isoformat(timespec="seconds"),
            **asdict(candidate),
            "commit": environment["commit"],
            "dirty": environment["dirty"],
            "by_others": _by_others(study),
        }
        study.set_user_attr("test_openings", [*openings, opening])
    return source.test()


def open_for_replication(source: Source) -> Dataset:
    """Read the test set for the report's own tables, whose figures are of test images.

    Nothing is chosen by them, and no study reads them.
    """
    return source.test()


def _by_others(study: optuna.Study) -> int:
    """How often other studies of its images in the same database have opened their test set.

    Of the same task, and of the same training images or a folder of the same name: images that were
    renamed, moved or added to are not new ones.
    """
    own = study.user_attrs.get("identity", {})
    marks = [(key, own[key]) for key in ("data", "data_fingerprint") if key in own]

    def has_these(identity: Mapping[str, Any]) -> bool:
        same = any(identity.get(key) == value for key, value in marks)
        return same and identity.get("task") == own["task"]

    return sum(
        len(each.user_attrs.get("test_openings", ()))
        for each in study._storage.get_all_studies()
        if each.study_name != study.study_name and has_these(each.user_attrs.get("identity", {}))
    )


def _candidate(opening: Mapping[str, Any]) -> Candidate:
    return Candidate(opening["trial"], opening["seeds"], opening["epochs"])
