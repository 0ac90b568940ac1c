"""What a trial costs besides its training as a study grows, against a plain Optuna + MLflow script.

    python benchmarks/control_plane.py
    python benchmarks/control_plane.py --storage postgresql+psycopg://user@127.0.0.1/empty

Dead time: asking for a trial of the gland study's space, reporting 30 epochs, asking whether to
prune (none is), telling its value, and writing it into MLflow with all epochs. The trainings
themselves take no time here, so that what dl4ia writes beside them counts in full; the epochs'
values it writes together, but for the first and up to that in which its pruner decides, for it does
so once a second at most. The plain script is what the libraries' own examples do: a default
storage, `study.optimize`, and `mlflow.log_metrics` after each epoch, with Optuna's Hyperband, which
it asks after each of them whether to prune; dl4ia asks in the one epoch in which its pruner
decides, and so pays for it once. With another pruner a plain script pays more (Optuna's default) or
less (none). Both are given a study with so many finished trials (the same values), and run ten
more, in turns; the figures are means over them.
Takes about 10 minutes on two cores, most of them to fill the studies.
"""

import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from flags import add_record, parser_of
from table import record

from dl4ia.environment import tune_process

EPOCHS, RUN = 30, 10
SIZES = (10, 1_000, 10_000)  # finished trials
GOALS = {1_000: "100 ms, 20 times", 10_000: "250 ms"}


def values(seed: int) -> list[float]:
    """A course of validation values."""
    draw = random.Random(seed)
    end = draw.uniform(0.6, 0.9)
    return [end * (1 - 0.5 ** (epoch + 1)) for epoch in range(EPOCHS)]


def history(course: list[float]) -> dict[str, list[float]]:
    """What a trial keeps of its epochs."""
    columns = ("train_loss", "train_accuracy", "learning_rate", "val_loss", "val_dice",
               "val_dice_pooled", "val_iou", "seconds")  # fmt: skip
    return dict.fromkeys(columns, course)


def finished(space: Any, count: int) -> Iterator[Any]:
    """So many trials of random points, as they would stand in a study, epochs and all."""
    import optuna

    from dl4ia.environment import describe_environment
    from dl4ia.search.trials import PREFIX
    from dl4ia.search_space import sample

    environment = describe_environment()

    drawing = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(count):
        trial = drawing.ask()
        sample(space, trial)
        course = values(number)
        yield optuna.trial.create_trial(
            value=course[-1],
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={"seed": number, "weights": 1000 + number},
            system_attrs={
                f"{PREFIX}environment": environment,
                f"{PREFIX}history": history(course),
            },
            intermediate_values=dict(enumerate(course, start=1)),
        )


def fill(study: Any, trials: list[Any]) -> None:
    """Add finished trials, a table at a time: one by one they would take Optuna minutes."""
    from datetime import datetime

    from optuna.distributions import distribution_to_json
    from optuna.storages._rdb import models
    from optuna.trial import TrialState
    from sqlalchemy import insert, select

    storage = study._storage
    storage = getattr(storage, "_backend", storage)  # Optuna wraps it in a cache
    first, now = len(study.trials), datetime.now()

    def tables(ids: list[int]) -> Iterator[tuple[Any, list[dict[str, Any]]]]:
        pairs = list(zip(ids, trials, strict=True))
        yield (
            models.TrialParamModel,
            [
                {
                    "trial_id": known,
                    "param_name": name,
                    "param_value": domain.to_internal_repr(trial.params[name]),
                    "distribution_json": distribution_to_json(domain),
                }
                for known, trial in pairs
                for name, domain in trial.distributions.items()
            ],
        )
        yield (
            models.TrialIntermediateValueModel,
            [
                {
                    "trial_id": known,
                    "step": step,
                    "intermediate_value": value,
                    "intermediate_value_type": "FINITE",
                }
                for known, trial in pairs
                for step, value in trial.intermediate_values.items()
            ],
        )
        for model, attributes in (
            (models.TrialUserAttributeModel, "user_attrs"),
            (models.TrialSystemAttributeModel, "system_attrs"),
        ):
            yield (
                model,
                [
                    {"trial_id": known, "key": key, "value_json": json.dumps(value)}
                    for known, trial in pairs
                    for key, value in getattr(trial, attributes).items()
                ],
            )
        yield (
            models.TrialValueModel,
            [
                {"trial_id": known, "objective": 0, "value": trial.value, "value_type": "FINITE"}
                for known, trial in pairs
            ],
        )

    rows = [
        {
            "number": first + number,
            "study_id": study._study_id,
            "state": TrialState.COMPLETE,
            "datetime_start": now,
            "datetime_complete": now,
        }
        for number in range(len(trials))
    ]
    of_study = models.TrialModel.study_id == study._study_id
    with storage.engine.begin() as connection:
        connection.execute(insert(models.TrialModel.__table__), rows)
        new = select(models.TrialModel.trial_id).where(of_study, models.TrialModel.number >= first)
        ids = [row[0] for row in connection.execute(new.order_by(models.TrialModel.number))]
        for model, values_of in tables(ids):
            connection.execute(insert(model.__table__), values_of)


def dl4ia_way(folder: Path, storage: str | None, count: int) -> Callable[[], float]:
    """Runs ten trials of a study that has `count`, and gives the seconds of each."""
    import optuna

    from dl4ia.command_line.flags import parse, study_parser
    from dl4ia.data.embedded import EmbeddedGlands
    from dl4ia.search.halving import Halving, rung
    from dl4ia.search.loop import search
    from dl4ia.search.objective import Objective
    from dl4ia.search.trials import finished_trials
    from dl4ia.search.turns import KEEP
    from dl4ia.session import Length, open_session
    from dl4ia.tasks.segmentation import SegmentationTask
    from dl4ia.workflow.keeper import Keeper
    from dl4ia.workflow.recording import open_parent
    from search_spaces import segmentation

    class Asked(Halving):
        """Decides, and lets every trial go on, so that both ways report as many epochs."""

        def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
            super().prune(study, trial)
            return False

    class Idle(Objective):
        """Trains in no time."""

        def results(
            self, point: Mapping[str, Any], seed: int, trial: optuna.Trial | None = None
        ) -> Iterator[dict[str, float]]:
            for value in values(seed):
                yield {"train_loss": 1 - value, "val_dice": value, "seconds": 0.0}

    flags = ["--out", str(folder), "--study-name", f"size-{count}", "--epochs", str(EPOCHS)]
    flags += ["--storage", storage] if storage else []
    arguments, _ = parse(study_parser("", "", "", ""), flags)
    session = open_session(
        SegmentationTask(), EmbeddedGlands(), segmentation, Length(EPOCHS, EPOCHS), arguments
    )
    session.study.pruner = Asked(rung(EPOCHS))
    fill(session.study, list(finished(segmentation.SPACE, count)))
    idle = Idle(**{field.name: getattr(session.objective, field.name) for field in fields(Idle)})
    parent = open_parent(session)
    keeper = Keeper(session, parent)
    keeper._written |= {str(trial.number): "" for trial in finished_trials(session.study)}

    def run() -> float:
        start = time.perf_counter()
        total = len(finished_trials(session.study)) + RUN
        with session.turns.take(KEEP):
            with keeper:
                search(session.study, idle, total, None, session.turns, lambda trial: keeper.look())
            keeper.write_missing()
        return (time.perf_counter() - start) / RUN

    return run


def plain_way(folder: Path, storage: str | None, count: int) -> Callable[[], float]:
    """The same by the libraries' examples."""
    import mlflow
    import optuna

    from dl4ia.search_space import sample
    from search_spaces import segmentation

    study = optuna.create_study(
        storage=storage or f"sqlite:///{folder}/plain.db",
        study_name=f"plain-{count}",
        direction="maximize",
        pruner=optuna.pruners.HyperbandPruner(max_resource=EPOCHS),
    )
    fill(study, list(finished(segmentation.SPACE, count)))
    mlflow.set_tracking_uri(f"sqlite:///{folder}/plain-mlflow.db")
    mlflow.set_experiment("plain")

    def objective(trial: optuna.Trial) -> float:
        sample(segmentation.SPACE, trial)
        with mlflow.start_run():
            mlflow.log_params(trial.params)
            for epoch, value in enumerate(values(trial.number), start=1):
                mlflow.log_metrics({"train_loss": 1 - value, "val_dice": value}, step=epoch)
                trial.report(value, epoch)
                trial.should_prune()  # and goes on, as dl4ia's do here
        return value

    def run() -> float:
        start = time.perf_counter()
        study.optimize(objective, n_trials=RUN)
        return (time.perf_counter() - start) / RUN

    return run


def main() -> None:
    """Print a line for each size."""
    parser = parser_of(__doc__)
    parser.add_argument("--storage", metavar="URL", help="an empty database (default: SQLite)")
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=SIZES,
        metavar="N",
        help="how many finished trials the studies have (default: %(default)s)",
    )
    add_record(parser)
    arguments = parser.parse_args()
    tune_process()
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(f"{'trials':>8}  {'dl4ia':>8}  {'plain':>8}  ratio")
    for count in arguments.sizes:
        with tempfile.TemporaryDirectory() as temporary:
            place = Path(temporary), arguments.storage, count
            ways = [make(*place) for make in (dl4ia_way, plain_way)]
            taken = [[way() for way in ways] for _ in range(2)][1]  # the first warms up
        ours, plain = (1000 * seconds for seconds in taken)
        print(f"{count:>8,}  {ours:>5.0f} ms  {plain:>5.0f} ms  {plain / ours:.1f}", flush=True)
        if arguments.record:
            kind = "PostgreSQL" if arguments.storage else "SQLite"
            record(
                f"dead time of a trial, at {count:,} finished ones, {kind}",
                f"{ours:.0f} ms",
                f"{plain:.0f} ms",
                f"{plain / ours:.1f}",
                GOALS.get(count, "–"),
            )


if __name__ == "__main__":
    main()
