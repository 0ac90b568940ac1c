"""A finished study as a folder of small files, to keep, compare and publish: `dl4ia results`.

    <study>/README.md      what was run, on what, and what came of it
    <study>/study.json     the same for programs
    <study>/trials.csv     a line a trial, with its point
    <study>/finalists.csv  their value on each repeat
    <study>/ablation.csv   what each of the winner's choices buys
    <study>/test.csv       every test metric, of each seed, beside the report's model
    <study>/study.png      all of it at a glance
    <study>/optuna.db      the study itself, for the Optuna dashboard, or to go on with

No image of the data and no weights are among them.
"""

import json
from argparse import ArgumentTypeError
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from dl4ia.addresses import database_in
from dl4ia.command_line.flag_types import study_name
from dl4ia.console.results_copy import check_copy, write_copy
from dl4ia.console.results_page import read_record, results_page
from dl4ia.console.results_picture import draw_results
from dl4ia.errors import InputError
from dl4ia.report import findings
from dl4ia.search.study import find_study
from dl4ia.search.trials import (
    first_value,
    hidden,
    history_of,
    is_interrupted,
    is_skipped,
    seconds_of,
    trial_of,
)
from dl4ia.selection.ablation import effects_of, estimate_of
from dl4ia.selection.finalists import Selection, completed_since
from dl4ia.selection.repeats import kept_repeats, repeat_environments

WHOLE = ("weights", "seed")  # columns of whole numbers, some of them missing


def write_results(name: str, storage: str, folder: Path) -> list[Path]:
    """The study's files in `folder`/`name`; what was there of an earlier call is replaced.

    A winner without a test score (`--seeds 0`) will do. Raises InputError where there is no such
    study, it has no winner yet, or what is there would be lost: test scores, or further trials.
    """
    try:
        study_name(name)  # it names the folder; another database's study may be called anything
    except ArgumentTypeError as error:
        raise InputError(f"study {error}") from error
    study = find_study(storage, name)
    winner: dict[str, Any] | None = study.user_attrs.get("winner")
    number: int | None = (winner or {}).get(
        "trial", study.user_attrs.get("selection", {}).get("winner")
    )
    if number is None:
        raise InputError(
            f"study {name!r}: has no winner; expected a study that has ended with one: run its "
            "command again (of several objectives with --knee)"
        )
    chosen = trial_of(study, number)
    selection = _selection(study, chosen)
    frames = {
        "trials": _trials(study),
        "finalists": _finalists(study, selection) if selection else pd.DataFrame(),
        "ablation": _ablation(study, chosen),
        "test": _test(winner) if winner else pd.DataFrame(),
    }
    place = folder / name
    known, database = place / "study.json", place / "optuna.db"
    database_in(place, database.name, "--to")  # it will have an address
    _check_scores(known, winner)
    check_copy(study, storage, database)
    place.mkdir(parents=True, exist_ok=True)
    files = []
    for title, frame in frames.items():
        file = place / f"{title}.csv"
        if frame.empty:
            file.unlink(missing_ok=True)
            continue
        frame.to_csv(file, index=False, lineterminator="\n")
        files.append(file)
    record = _record(study, chosen, winner, selection)
    page = place / "README.md"
    known.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    page.write_text(results_page(study, chosen, winner, selection, record), encoding="utf-8")
    picture = draw_results(place)
    write_copy(study, storage, database)
    return [page, known, *files, picture, database]


def _check_scores(known: Path, winner: Mapping[str, Any] | None) -> None:
    """Raise InputError where an earlier call has written test scores, and there are none now."""
    if winner is None and known.exists() and "scores" in read_record(known):
        raise InputError(
            f"{known}: holds the test scores of a study of that name, which this one has not; "
            "give another --to, or this study another --study-name"
        )


def _selection(study: optuna.Study, chosen: FrozenTrial) -> Selection | None:
    """The finalists, where it is they that the winner comes of."""
    record = study.user_attrs.get("selection")
    selection = Selection.from_record(record) if record else None
    settled = selection and selection.finalists and selection.winner == chosen.number
    return selection if settled else None


def _preferred_since(study: optuna.Study, chosen: FrozenTrial) -> int | None:
    """The trial that a study which has gone on would have win, if the test set were still shut."""
    preferred: int | None = study.user_attrs.get("selection", {}).get("winner")
    return None if preferred == chosen.number else preferred


def _trials(study: optuna.Study) -> pd.DataFrame:
    rows = []
    for trial in study.get_trials(deepcopy=False):
        history = history_of(trial)
        # Optuna gives a pruned trial its last value, which is no value of a whole training.
        value = first_value(trial) if trial.state == TrialState.COMPLETE else None
        rows.append(
            {
                "trial": trial.number,
                "state": _state(trial),
                "model": findings.describe(trial),
                "of_the_report": "report_model" in trial.user_attrs,
                "value": value,
                "epochs": len(history.get("seconds", [])),
                "seconds": seconds_of(trial),
                "weights": trial.user_attrs.get("weights"),
                "seed": trial.user_attrs.get("seed"),
                "commit": hidden(trial, "environment").get("commit"),
                **{name: values[-1] for name, values in history.items() if name.startswith("val_")},
                **trial.params,
            }
        )
    whole = [name for name, kinds in _kinds(study).items() if kinds == {int}]
    return pd.DataFrame(rows).astype(dict.fromkeys([*WHOLE, *whole], "Int64"))


def _state(trial: FrozenTrial) -> str:
    if is_skipped(trial):
        return "skipped"
    return "interrupted" if is_interrupted(trial) else trial.state.name.lower()


def _kinds(study: optuna.Study) -> dict[str, set[type]]:
    """Hyperparameter -> the types of its values."""
    found: dict[str, set[type]] = {}
    for trial in study.get_trials(deepcopy=False):
        for name, value in trial.params.items():
            found.setdefault(name, set()).add(type(value))
    return found


def _finalists(study: optuna.Study, selection: Selection) -> pd.DataFrame:
    trials = study.get_trials(deepcopy=False)
    rows = []
    for each in selection.finalists:
        row: dict[str, Any] = {
            "trial": each.trial,
            "model": findings.describe(trials[each.trial]),
            "weights": each.weights,
            "search": each.searched,
        }
        if each.values:
            found = selection.estimate(each)
            row |= {"mean": found.mean}
            if found.count > 1:
                row |= {"sd": found.deviation}
            if found.has_interval:
                row |= {"low": found.low, "high": found.high}
        row |= {f"repeat_{number}": value for number, value in enumerate(each.values, start=1)}
        rows.append(row | {"given_up": each.given_up})
    return pd.DataFrame(rows)


def _ablation(study: optuna.Study, chosen: FrozenTrial) -> pd.DataFrame:
    record = findings.ablation_of(study, chosen.number)
    if record is None:
        return pd.DataFrame()
    rows = []
    for each in effects_of(record):
        row: dict[str, Any] = {
            "choice": each.name,
            "winner": each.chosen,
            record["baseline"]: each.turned_back,
        }
        if not each.failure:
            found = estimate_of(each, record)
            row |= {"effect": found.mean}
            if found.has_interval:
                row |= {"low": found.low, "high": found.high}
            values = enumerate(each.differences, start=1)
            row |= {f"repeat_{number}": value for number, value in values}
        rows.append(row | {"failure": each.failure})
    return pd.DataFrame(rows)


def _test(winner: Mapping[str, Any]) -> pd.DataFrame:
    scores = winner["metrics"]
    rows = []
    for name in findings.test_metrics(scores):
        known = {"metric": name, "mean": scores[f"test_{name}"]}
        for column, key in {
            "sd": f"test_{name}_sd",
            "low": f"test_{name}_low",
            "high": f"test_{name}_high",
            **{f"seed_{k}": f"test_{name}_seed_{k}" for k in range(winner["seeds"])},
            **{end: f"test_{name}_{end}" for end in findings.ensemble_labels(winner["seeds"])},
            "report": f"report_{name}",
            "report_sd": f"report_{name}_sd",
            "difference": f"difference_{name}",
            "difference_low": f"difference_{name}_low",
            "difference_high": f"difference_{name}_high",
            "p_better": f"p_better_{name}",
        }.items():
            if key in scores:
                known[column] = scores[key]
        rows.append(known)
    return pd.DataFrame(rows)


def _record(
    study: optuna.Study,
    chosen: FrozenTrial,
    winner: Mapping[str, Any] | None,
    selection: Selection | None,
) -> dict[str, Any]:
    """study.json. Without a winner's record there is nothing of its retraining and scores."""
    trials = study.get_trials(deepcopy=False)
    identity = study.user_attrs["identity"]
    environments = [hidden(trial, "environment") for trial in trials] + repeat_environments(study)
    starts = [trial.datetime_start for trial in trials if trial.datetime_start]
    ends = [trial.datetime_complete for trial in trials if trial.datetime_complete]
    further = [*kept_repeats(study).values(), *([winner] if winner else [])]
    ends += [datetime.fromisoformat(each["end"]) for each in further]
    command, last = (winner or study.user_attrs).get("command"), study.user_attrs.get("command")
    record = {
        "study": study.study_name,
        "command": command,
        "last_command": last if last != command else None,
        "data": study.user_attrs.get("data", {}).get("source", identity["data"]),
        "identity": identity,
        "metric": identity["metric"],
        "machine": {
            key: sorted({str(each[key]) for each in environments if key in each})
            for key in ("commit", "dirty", "device", "processor", "cores", "precision", "system",
                        "python", "torch", "optuna")
        },
        "start": min(starts).isoformat(timespec="seconds"),
        "end": max(ends).isoformat(timespec="seconds"),
        "trials": findings.states(study),
        "trial_seconds": sum(seconds_of(trial) for trial in trials),
        "winner": chosen.number,
        "winner_model": findings.describe(chosen),
        "weights": chosen.user_attrs["weights"],
        "point": chosen.params,
        "test_openings": study.user_attrs.get("test_openings", []),
        "former_scores": [
            {name: each[name] for name in ("opening", "trial", "seeds", "epochs", "metrics")}
            for each in study.user_attrs.get("former_winners", ())
        ],
        "preferred_since": _preferred_since(study, chosen),
        "completed_since": completed_since(study),
        "optimism": selection.optimism if selection else None,
        "winners_optimism": selection.winners_optimism if selection else None,
        "shared_optimism": selection.shared_optimism if selection else None,
    }  # fmt: skip
    if winner is None:
        return record
    compared = winner["compared_with"]
    return record | {
        "retraining_commits": winner["commits"],
        "retraining_epochs": winner["epochs"],
        "seeds": winner["seeds"],
        "test_images": winner["images"],
        "test_patients": winner["patients"],
        "report_model": None if compared is None else findings.describe(trials[compared]),
        "scores": winner["metrics"],
    }
