"""Run the report's trainings, print its tables, write page and Markdown."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tqdm import tqdm

from dl4ia.pictures import draw_confusion, draw_misclassified
from dl4ia.replication.figures import Figure, draw_histories, draw_side_by_side
from dl4ia.replication.page import write_page
from dl4ia.replication.tables import Table, as_markdown, as_text
from dl4ia.replication.trainings import Bench, Outcome, Training
from dl4ia.report import plural
from dl4ia.tracking import DatasetRecord, RunRecord, Tracker

EXPERIMENT = "replication"


def replicate(
    tables: Sequence[Table], benches: Mapping[str, Bench], seeds: int, tracker: Tracker
) -> dict[str, list[Outcome]]:
    """Train what is missing of `tables`, tell MLflow, and print each table once it is whole.

    benches: name of a task -> where its trainings are run. The outcomes, one a seed, of each
    training by its name.
    """
    trainings = {row.training.name: row.training for table in tables for row in table.rows}
    written = tracker.find(EXPERIMENT, "replication", "dl4ia.row").keys()
    outcomes: dict[str, list[Outcome]] = {}
    printed: set[str] = set()
    total = seeds * sum(training.epochs for training in trainings.values())
    with tqdm(total=total, unit="epoch", disable=None, leave=False) as bar:
        for number, training in enumerate(trainings.values(), start=1):
            bench = benches[training.task]
            found = [bench.outcome(training, seed, bar.update) for seed in range(seeds)]
            for outcome in found:
                if _row(outcome) not in written:
                    tracker.write(_run_record(outcome, training), _data_record(bench), None)
            outcomes[training.name] = found
            bar.n = seeds * sum(known.epochs for known in list(trainings.values())[:number])
            for table in tables:
                done = all(row.training.name in outcomes for row in table.rows)
                if done and table.name not in printed:
                    printed.add(table.name)
                    tqdm.write(f"\n{as_text(table, outcomes)}")
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
    outcomes: Mapping[str, Sequence[Outcome]],
    benches: Mapping[str, Bench],
) -> list[Path]:
    """`name`.html and `name`.md in `folder`, the pictures in a folder `name`; the two files."""
    pictures: dict[str, Path] = {}
    for number, figure in enumerate(illustrations.histories):
        file = draw_histories(figure, outcomes, folder / name / f"history_{number}.png")
        if file:
            pictures[figure.title] = file
    if illustrations.confusion.name in outcomes:
        bench = benches[illustrations.confusion.task]
        pictures |= _digit_pictures(bench, illustrations.confusion, folder / name)
    shown = {
        label: training
        for label, training in illustrations.segmentations.items()
        if training.name in outcomes
    }
    if shown:
        pictures |= _gland_pictures(benches["segmentation"], shown, folder / name)
    page, text = folder / f"{name}.html", folder / f"{name}.md"
    provenance = _provenance(outcomes, benches)
    write_page(page, tables, outcomes, pictures, provenance)
    lines = [as_markdown(table, outcomes) for table in tables]
    text.write_text("\n".join([*lines, " ".join(provenance), ""]), encoding="utf-8")
    return [page, text]


def _provenance(
    outcomes: Mapping[str, Sequence[Outcome]], benches: Mapping[str, Bench]
) -> list[str]:
    """Where the figures come from, in sentences."""
    every = [outcome for found in outcomes.values() for outcome in found]
    environments = [outcome.environment for outcome in every]

    def values(key: str) -> str:
        return ", ".join(sorted({environment[key] for environment in environments}))

    seeds = plural(len({outcome.seed for outcome in every}), "seed")
    commits = ", ".join(sorted({environment["commit"][:10] for environment in environments}))
    changed = " (with uncommitted changes)" if "True" in values("dirty") else ""
    first, last = min(each.start for each in every), max(each.end for each in every)
    return [
        *(f"Data: {bench.source.description}." for bench in benches.values()),
        f"Ours: mean ± SD over {seeds}, of the weights after the last epoch. Made by studies/"
        f"replicate.py at commit {commits}{changed} on {values('device')} "
        f"({values('cores')} cores, {values('precision')}, torch {values('torch')}), "
        f"{first[:10]} to {last[:10]}. Seconds are of a machine that others use too.",
    ]


def _gland_pictures(bench: Bench, shown: Mapping[str, Training], folder: Path) -> dict[str, Path]:
    _, scored = bench.parts(next(iter(shown.values())), 0)
    predictions = {label: bench.predictions(training, 0) for label, training in shown.items()}
    names = ("image_05.png", "image_11.png")
    file = draw_side_by_side(scored, predictions, names, folder / "segmentations.png")
    return {"Figures 8 to 18: test images 05 and 11, first seed": file}


def _digit_pictures(bench: Bench, training: Training, folder: Path) -> dict[str, Path]:
    _, scored = bench.parts(training, 0)
    predictions = bench.predictions(training, 0)
    classes = tuple(map(str, range(int(scored.labels.max()) + 1)))
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
    recipe = json.dumps(outcome.recipe, sort_keys=True).encode()
    digest = hashlib.sha256(recipe).hexdigest()[:12]
    return f"{outcome.training}/{outcome.seed}/{digest}"


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
        parameters=dict(training.point) | {"epochs": training.epochs},
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
