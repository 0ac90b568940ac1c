"""Run the report's trainings, print its tables, write page and Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tqdm import tqdm

from dl4ia.errors import InputError, TrackingError, TrialFailure, first_line
from dl4ia.markdown import plain, write_between_marks
from dl4ia.replication.figures import Figure, draw_histories, draw_side_by_side
from dl4ia.replication.page import write_page
from dl4ia.replication.tables import REMARKED, Table, as_markdown, as_summary, as_text
from dl4ia.replication.trainings import Bench, Outcome, Training
from dl4ia.tasks.pictures import draw_confusion, draw_misclassified
from dl4ia.tracking.runs import DatasetRecord, RunRecord
from dl4ia.tracking.writing import Tracker

EXPERIMENT = "replication"
MARK = "replication"  # of the short table in a text

Benches = Mapping[str, Bench]  # name of a task -> where its trainings are run
Outcomes = dict[str, list[Outcome]]  # name of a training -> one a seed


def replicate(tables: Sequence[Table], benches: Benches, seeds: int, tracker: Tracker) -> None:
    """Train what is missing of `tables`, tell MLflow, and print each table once it is whole.

    A training that fails is told and left out; those of other rows go on. Raises InputError where
    MLflow or the disk fails: what was trained is kept.
    """
    trainings = _trainings(tables)
    outcomes: Outcomes = {}
    left = list(tables)
    total = seeds * sum(training.epochs for training in trainings.values())
    with tqdm(total=total, unit="epoch", disable=None, leave=False) as bar:
        end = 0
        for training in trainings.values():
            try:
                outcomes[training.name] = [
                    _tracked(benches[training.task], training, seed, tracker, bar)
                    for seed in range(seeds)
                ]
            except TrialFailure as failure:
                outcomes[training.name] = []
                tqdm.write(f"{training.name} failed: {failure}")
            end += seeds * training.epochs
            bar.update(end - bar.n)
            for table in [each for each in left if _trainings([each]).keys() <= outcomes.keys()]:
                left.remove(table)
                tqdm.write(f"\n{as_text(table, outcomes)}")


def _trainings(tables: Sequence[Table]) -> dict[str, Training]:
    return {row.training.name: row.training for table in tables for row in table.rows}


def _tracked(bench: Bench, training: Training, seed: int, tracker: Tracker, bar: tqdm) -> Outcome:
    """The outcome, trained where it must be and written into MLflow where it is not."""
    outcome = bench.outcome(training, seed, bar.update)
    try:
        row = _row(outcome)
        if row not in tracker.find(EXPERIMENT, "replication", "dl4ia.row"):
            tracker.discard_unfinished(EXPERIMENT, ["replication"], row)
            tracker.write(_run_record(outcome, training), _data_record(bench), None)
    except TrackingError as error:
        raise InputError(
            f"MLflow failed ({first_line(error)}); what was trained is kept: when MLflow is back, "
            "the same command goes on and writes what is missing"
        ) from error
    return outcome


def kept_outcomes(tables: Sequence[Table], benches: Benches) -> Outcomes:
    """What is kept of `tables`, trained now or before, up to the first seed that is not."""
    outcomes: Outcomes = {}
    for name, training in _trainings(tables).items():
        found = outcomes[name] = []
        while (outcome := benches[training.task].kept(training, len(found))) is not None:
            found.append(outcome)
    return outcomes


@dataclass(frozen=True)
class Illustrations:
    """What is drawn: histories; one training's confusion matrix and errors; models side by side."""

    histories: Sequence[Figure]
    confusion: Training
    segmentations: Mapping[str, Training]  # label -> training on the test images


def write_reports(
    folder: Path,
    name: str,
    tables: Sequence[Table],
    illustrations: Illustrations,
    outcomes: Outcomes,
    benches: Benches,
) -> list[Path]:
    """`name`.html and `name`.md in `folder`, the pictures in a folder `name`; the two files."""
    pictures: dict[str, Path] = {}
    for number, figure in enumerate(illustrations.histories):
        file = draw_histories(figure, outcomes, folder / name / f"history_{number}.png")
        if file:
            pictures[figure.title] = file
    confusion = illustrations.confusion
    if found := outcomes.get(confusion.name):
        pictures |= _digit_pictures(benches[confusion.task], confusion, found[0], folder / name)
    shown = {
        label: outcomes[training.name][0]
        for label, training in illustrations.segmentations.items()
        if outcomes.get(training.name)
    }
    if shown:
        any_training = next(iter(illustrations.segmentations.values()))
        pictures |= _gland_pictures(benches["segmentation"], any_training, shown, folder / name)
    tables = [table for table in tables if any(map(outcomes.get, _trainings([table])))]
    page, text = folder / f"{name}.html", folder / f"{name}.md"
    provenance = _provenance(outcomes, benches)
    if any(table.remark for table in tables):
        provenance.append(f"The remarks are of the trainings in {REMARKED}.")
    write_page(page, tables, outcomes, pictures, provenance)
    lines = [as_markdown(table, outcomes) for table in tables]
    text.write_text("\n".join([*lines, plain(" ".join(provenance)), ""]), encoding="utf-8")
    return [page, text]


def write_into(file: Path, tables: Sequence[Table], outcomes: Outcomes, benches: Benches) -> None:
    """Replace what stands between the marks of a text by the short table."""
    table, provenance = (
        as_summary(tables, outcomes),
        plain(" ".join(_provenance(outcomes, benches))),
    )
    write_between_marks(file, MARK, f"{table}\n{provenance}")


def _provenance(outcomes: Outcomes, benches: Benches) -> list[str]:
    """Where the figures come from, in sentences."""
    every = [outcome for found in outcomes.values() for outcome in found]
    if not every:
        return ["Nothing is trained yet."]
    environments = [outcome.environment for outcome in every]

    def values(key: str) -> str:
        known = {environment[key] for environment in environments if key in environment}
        return ", ".join(sorted(known))

    seeds = len({outcome.seed for outcome in every})
    spread = f"mean ± SD over {seeds} seeds" if seeds > 1 else "1 seed"
    commits = ", ".join(sorted({environment["commit"][:10] for environment in environments}))
    changed = " (with uncommitted changes)" if "True" in values("dirty") else ""
    precisions = {f"{each.recipe['task']} in {each.environment['precision']}" for each in every}
    days = sorted({outcome.end[:10] for outcome in every})
    return [
        *(f"Data: {bench.source.description}." for bench in benches.values()),
        f"Ours: {spread}, of the weights after the last epoch. Made by studies/"
        f"replicate.py at commit {commits}{changed} on {values('device')} "
        f"({', '.join(filter(None, [values('processor'), values('system')]))}, cores a process: "
        f"{values('cores')}, {', '.join(sorted(precisions))}, torch {values('torch')}), "
        f"{' to '.join(dict.fromkeys([days[0], days[-1]]))}. Seconds are of all epochs, each with "
        "its scoring, and compare only within one run.",
    ]


def _gland_pictures(
    bench: Bench, training: Training, shown: Mapping[str, Outcome], folder: Path
) -> dict[str, Path]:
    _, scored = bench.parts(training, 0)
    predictions = {label: bench.predictions(outcome) for label, outcome in shown.items()}
    known = ("image_05.png", "image_11.png")
    names: list[str] = [name for name in known if name in scored.names]
    file = folder / "segmentations.png"
    names = names or list(scored.names[:2])
    draw_side_by_side(scored, predictions, names, file)
    return {f"Figures 8 to 18: test images {' and '.join(names)}, first seed": file}


def _digit_pictures(
    bench: Bench, training: Training, outcome: Outcome, folder: Path
) -> dict[str, Path]:
    _, scored = bench.parts(training, outcome.seed)
    predictions, classes = bench.predictions(outcome), bench.task.classes
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "Figure 6: confusion matrix, first seed": draw_confusion(
            scored.labels, predictions, classes, folder
        ),
        "Figure 7: misclassified digits, first seed": draw_misclassified(
            scored, predictions, classes, folder
        ),
    }


def _row(outcome: Outcome) -> str:
    """One for each training, seed and recipe."""
    return f"{outcome.training}/{outcome.seed}/{outcome.key}"


def _run_record(outcome: Outcome, training: Training) -> RunRecord:
    environment = {f"dl4ia.{key}": value for key, value in outcome.environment.items()}
    return RunRecord(
        name=f"{outcome.training}, seed {outcome.seed}",
        kind="replication",
        study=EXPERIMENT,
        tags={
            "dl4ia.row": _row(outcome),
            "dl4ia.training": outcome.training,
            "dl4ia.seed": str(outcome.seed),
            "dl4ia.scored_on": training.scored_on,
            "dl4ia.engine": training.engine,
            **environment,
        },
        parameters=training.trained_point | {"epochs": training.epochs},
        metrics=outcome.metrics | {"weights": outcome.weights, "seconds_total": outcome.seconds},
        history=outcome.history,
        start=datetime.fromisoformat(outcome.start),
        end=datetime.fromisoformat(outcome.end),
        status="FINISHED",
    )


def _data_record(bench: Bench) -> DatasetRecord:
    return DatasetRecord(
        name=bench.source.name,
        digest=bench.dataset.fingerprint(),
        source=bench.source.description,
        profile={"images": len(bench.dataset), **bench.source.preparation},
        context="training",
    )
