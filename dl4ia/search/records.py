"""From the Optuna study to what MLflow is told, so that MLflow can always be rebuilt from it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from dl4ia.markdown import plain
from dl4ia.search.study import Identity
from dl4ia.search.trials import hidden, history_of, is_interrupted
from dl4ia.text import plural
from dl4ia.tracking.runs import DatasetRecord, RunRecord, Status


def dataset_record(
    identity: Identity, source: str, count: int, classes: tuple[str, ...]
) -> DatasetRecord:
    """The training data of a study; `dl4ia predict` reads of the profile what it must know."""
    return DatasetRecord(
        name=identity.data,
        digest=identity.data_fingerprint,
        source=source,
        profile={"images": count, **identity.preparation, "classes": classes},
        context="training",
    )


def study_record(
    name: str, identity: Identity, environment: Mapping[str, str], start: datetime
) -> RunRecord:
    """The parent run of a study."""
    return RunRecord(
        name=name,
        kind="study",
        study=name,
        tags=_joined(identity, environment),
        parameters={
            "epochs": identity.epochs,
            "folds": identity.folds,
            "split_by": identity.split_by,
            "seed": identity.seed,
            **({"within": identity.within} if identity.within else {}),
        },
        metrics={},
        history={},
        start=start,
        end=None,
        status="RUNNING",
    )


def trial_record(name: str, identity: Identity, trial: FrozenTrial) -> RunRecord:
    """One finished trial: its last epoch's metrics are the run's `val_…` values."""
    attributes = trial.user_attrs
    point = attributes.get("point")
    tags = {"dl4ia.trial": str(trial.number), "dl4ia.state": trial.state.name}
    told = ("failure", "point", "report_model", "retry_of", "seed")
    tags |= {f"dl4ia.{name}": str(attributes[name]) for name in told if name in attributes}
    start = trial.datetime_start or datetime.now()
    end = trial.datetime_complete or start
    metrics = {"seconds_total": (end - start).total_seconds()}
    if "weights" in attributes:
        metrics["weights"] = attributes["weights"]
    return RunRecord(
        name=f"trial {trial.number}" + (f" ({point})" if point else ""),
        kind="trial",
        study=name,
        tags=tags | _joined(identity, hidden(trial, "environment")),
        parameters=trial.params,
        metrics=metrics,
        history=history_of(trial),
        start=start,
        end=end,
        status=_status(trial),
    )


def repeat_record(name: str, identity: Identity, key: str, kept: Mapping[str, Any]) -> RunRecord:
    """One training of a finalist, or of an ablation: `kept` is the study's attribute `key`."""
    history: dict[str, list[float]] = kept["history"]
    tags = {"dl4ia.row": key, "dl4ia.repeat": str(kept["repeat"]), "dl4ia.seed": str(kept["seed"])}
    if "failure" in kept:
        tags["dl4ia.failure"] = kept["failure"]
    return RunRecord(
        name=f"{kept['label']}, repeat {kept['repeat'] + 1}",
        kind="repeat",
        study=name,
        tags=tags | {"dl4ia.point": kept["label"]} | _joined(identity, kept["environment"]),
        parameters=kept["point"],
        metrics={"seconds_total": sum(history.get("seconds", []))},
        history=history,
        start=datetime.fromisoformat(kept["start"]),
        end=datetime.fromisoformat(kept["end"]),
        status="FAILED" if "failure" in kept else "FINISHED",
        description=plain(kept.get("failure", "")),
    )


def winner_record(
    name: str, identity: Identity, winner: Mapping[str, Any], environment: Mapping[str, str]
) -> RunRecord:
    """The retrained winner: `winner` is the study's attribute of that name."""
    return RunRecord(
        name=f"winner (trial {winner['trial']})",
        kind="winner",
        study=name,
        tags={
            "dl4ia.trial": str(winner["trial"]),
            "dl4ia.opening": str(winner["opening"]),
            "dl4ia.test_fingerprint": winner["test_fingerprint"],
            "dl4ia.training_commits": ", ".join(winner["commits"]),
            **_joined(identity, environment),
        },
        parameters=winner["point"],
        metrics=winner["metrics"]
        | {"weights": winner["weights"], "retraining_epochs": winner["epochs"]},
        history={
            f"{name}_seed_{number}": values
            for number, history in enumerate(winner["retrainings"])
            for name, values in history.items()
        },
        start=datetime.fromisoformat(winner["start"]),
        end=datetime.fromisoformat(winner["end"]),
        status="FINISHED",
        description=_scores(identity.metric, winner),
    )


def _joined(identity: Identity, environment: Mapping[str, str]) -> dict[str, str]:
    """What joins a run to its data, split and code."""
    fingerprints = {
        "dl4ia.data": identity.data,
        "dl4ia.data_fingerprint": identity.data_fingerprint,
        "dl4ia.split_fingerprint": identity.split_fingerprint,
        "dl4ia.space_fingerprint": identity.space_fingerprint,
    }
    return fingerprints | {f"dl4ia.{key}": str(value) for key, value in environment.items()}


def _scores(metric: str, winner: Mapping[str, Any]) -> str:
    scores: dict[str, float] = winner["metrics"]
    within = ""
    if f"test_{metric}_low" in scores:
        low, high = (f"{scores[f'test_{metric}_{end}']:.4f}" for end in ("low", "high"))
        within = f", 95 % interval {low} to {high}"
    return (
        f"Trial {winner['trial']}, retrained on all training images from "
        f"{plural(winner['seeds'], 'seed')} over {plural(winner['epochs'], 'epoch')}. Test "
        f"{metric}, mean over seeds: **{scores[f'test_{metric}']:.4f}**{within}, over "
        f"{plural(winner['images'], 'image')}. The report page is among the artifacts."
    )


def _status(trial: FrozenTrial) -> Status:
    if trial.state == TrialState.FAIL:
        return "KILLED" if is_interrupted(trial) else "FAILED"
    return "FINISHED"
