"""Results that take long: kept as JSON files, each made once, by one of the processes that run."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dl4ia.environment import describe_environment


def made_by() -> str:
    """By which version of the program, and on what: results of others do not compare."""
    made = describe_environment()
    return f"{made['commit'][:10]}, {made['processor']}, torch {made['torch']}"


def make_missing(folder: Path, names: Iterable[str], make: Callable[[str], Any]) -> Iterator[str]:
    """Make what no other process has made or is making; yields the name of each that was made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / f"{name}.json"
        try:
            with FileLock(path.with_suffix(".lock"), timeout=0):
                if path.exists():
                    continue
                unfinished = path.with_suffix(".part")
                unfinished.write_text(json.dumps(make(name)), encoding="utf-8")
                unfinished.rename(path)
        except Timeout:
            continue
        yield name


def read(folder: Path, name: str) -> Any:
    """What was made, or None."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
