"""What is said of a run, as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Kind = Literal["study", "trial", "repeat", "winner", "replication"]
WRITTEN_AT_ONCE: tuple[Kind, ...] = ("trial", "repeat", "winner")
Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class RunRecord:
    """Everything MLflow is to know of one run."""

    name: str
    kind: Kind
    study: str
    tags: Mapping[str, str]  # "dl4ia.trial": "7", for example, by which `Tracker.find` has it
    parameters: Mapping[str, object]
    metrics: Mapping[str, float]  # final values
    history: Mapping[str, Sequence[float]]  # metric name -> one value an epoch, from epoch 1
    start: datetime  # naive times are local, as Optuna's are
    end: datetime | None  # None: still running
    status: Status
    description: str = ""  # Markdown, on the run's page


@dataclass(frozen=True)
class DatasetRecord:
    """The data that a run has read."""

    name: str
    digest: str  # at most 36 characters
    source: str
    profile: Mapping[str, object]
    context: str  # "training", for example
