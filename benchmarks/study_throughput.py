"""The trials of a study an hour, against a plain script and Ray Tune, in one run.

    python benchmarks/study_throughput.py digits --data data  # MNIST as torchvision leaves it
    python benchmarks/study_throughput.py glands --data data/WARWICK  # without --data: drawn glands

Both train the same points (of one network, with learning rate, dropout, weight decay, schedule and
augmentation differing) for the same epochs, none is pruned, and both log every epoch to MLflow and
keep their study in SQLite. The plain script is Optuna, PyTorch and MLflow as the libraries' own
examples have them (peers.py); it is run with the DataLoader in its process and with two workers,
dl4ia with one worker and with two.
Ray Tune runs the plain script's training, two trials at once, in processes that it uses again; it
keeps no study. Each is a command of its own, from its first import to the last record; they take
turns. Takes up to 25 minutes a round on two cores. On a GPU dl4ia and Ray Tune train 4 and 12 at
once too, and the plain script loads with 8: `--trials 24 --epochs 20`, or as many as the time
allows.
"""

import argparse
import json
import logging
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flags import add_record, parser_of
from table import gpu, record

if TYPE_CHECKING:
    from peers import Material

OURS, PLAIN, RAY = "dl4ia", "plain script", "Ray Tune"
WAYS = {  # label -> whose way, and how many workers train, or load
    "dl4ia, 1 worker": (OURS, 1),
    "dl4ia, 2 workers": (OURS, 2),
    "plain script": (PLAIN, 0),
    "plain script, 2 loading": (PLAIN, 2),
    "Ray Tune, 2 at once": (RAY, 2),
}
GPU_WAYS = WAYS | {
    "dl4ia, 4 workers": (OURS, 4),
    "dl4ia, 12 workers": (OURS, 12),
    "plain script, 8 loading": (PLAIN, 8),
    "Ray Tune, 4 at once": (RAY, 4),
    "Ray Tune, 12 at once": (RAY, 12),
}
EPOCHS = {"digits": 3, "glands": 10}
TRIALS = 6


def points(task: str, trials: int) -> dict[str, dict[str, Any]]:
    """Points that differ as a sampler's would."""
    from search_spaces.classification import REPORT_MODELS
    from search_spaces.segmentation import REFERENCE_MODELS as GLANDS

    if task == "digits":
        start = REPORT_MODELS["exercise_1_4"] | {"optimizer": "adamw", "weight_decay": 0.0001}
        start |= {"head_width": 50}
        strengths = "affine"
    else:
        start, strengths = GLANDS["modern_unet"], "elastic"
    found = {}
    for number in range(trials):
        found[f"point_{number}"] = start | {
            "learning_rate": 0.001 * (1 + number % 3) * 0.9 ** (number // 6),
            "dropout": 0.1 * (number % 2),
            "weight_decay": 10.0 ** -(2 + number % 3),
            "schedule": ("constant", "cosine", "one_cycle")[number % 3],
            strengths: (0.0, 0.3)[number // 3 % 2],
        }
    return found


def dl4ia_way(run: argparse.Namespace, out: Path, workers: int) -> None:
    """The search of a study whose named points are those."""
    from types import SimpleNamespace
    from typing import cast

    from dl4ia.environment import tune_process

    tune_process()
    from peers import open_material

    from dl4ia.command_line.flags import parse, study_parser
    from dl4ia.command_line.process import end_with_parent
    from dl4ia.search_space import SpaceModule
    from dl4ia.session import Length, open_session
    from dl4ia.workflow.keeper import Keeper
    from dl4ia.workflow.recording import open_parent
    from dl4ia.workflow.trials import Trials
    from dl4ia.workflow.whole_study import run_study

    material = open_material(run.task, run.data)
    named = dict(vars(material.searched))
    named |= {"REPORT_MODELS": {}, "REFERENCE_MODELS": points(run.task, run.trials)}
    searched = cast(SpaceModule, SimpleNamespace(**named))
    flags = ["--out", str(out), "--trials", str(run.trials), "--workers", str(workers)]
    flags += ["--worker"] if "--worker" in sys.argv else []
    arguments, _ = parse(study_parser("", "", "", ""), flags)
    length = Length(run.epochs, run.epochs)
    if arguments.worker:
        end_with_parent()
        run_study(material.task, material.source, searched, length, arguments)
        return
    session = open_session(material.task, material.source, searched, length, arguments)
    with Trials(session) as trials, Keeper(session, open_parent(session)) as keeper:
        trials.run(keeper.look)
    keeper.write_missing()
    print([trial.values[0] for trial in session.study.trials])


def train_tracked(
    material: "Material", point: Mapping[str, Any], epochs: int, seed: int, loading: int
) -> Iterator[float]:
    """The usual training of a point, each epoch logged to MLflow; its scores."""
    import mlflow
    import torch
    from peers import in_torchs_layers, train_plainly

    torch.manual_seed(seed)
    model = in_torchs_layers(material.task.build(point, material.train))
    loaders = material.loaders(point, loading)
    with mlflow.start_run():
        mlflow.log_params(dict(point))
        results = train_plainly(model, loaders, point, epochs)
        for number, (seconds, score) in enumerate(results, start=1):
            mlflow.log_metrics({"score": score, "seconds": seconds}, step=number)
            yield score


def plain_way(run: argparse.Namespace, out: Path, loading: int) -> None:
    """As in the examples of Optuna, PyTorch and MLflow."""
    import mlflow
    import optuna
    from peers import open_material

    material = open_material(run.task, run.data)
    known = points(run.task, run.trials)
    out.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(f"sqlite:///{out}/mlflow.db")
    mlflow.set_experiment("plain")
    study = optuna.create_study(
        storage=f"sqlite:///{out}/optuna.db", study_name="plain", direction="maximize"
    )
    for point in known.values():
        study.enqueue_trial(point)

    def objective(trial: optuna.Trial) -> float:
        from dl4ia.search_space import sample

        point = sample(material.searched.SPACE, trial)
        score = 0.0
        scores = train_tracked(material, point, run.epochs, trial.number, loading)
        for number, score in enumerate(scores, start=1):
            trial.report(score, number)
        return score

    study.optimize(objective, n_trials=run.trials)
    print([trial.values[0] for trial in study.trials])


def ray_way(run: argparse.Namespace, out: Path, at_once: int) -> None:
    """As in Ray Tune's examples: a function that loads its data, trains and reports."""
    import mlflow
    import ray
    from peers import DEVICE
    from ray import tune

    out.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(f"sqlite:///{out}/mlflow.db")
    mlflow.set_experiment("plain")  # its tables are made before two processes ask for them
    here = str(Path(__file__).parent)
    # A trial has a folder of its own, in which no relative path leads anywhere.
    task, epochs, data = run.task, run.epochs, run.data
    if data is None and task == "digits":
        data = Path("data")  # as `open_material` has it
    data = data and data.resolve()
    known = list(points(task, run.trials).values())

    def train(config: dict[str, Any]) -> None:
        import mlflow
        from peers import open_material

        mlflow.set_tracking_uri(f"sqlite:///{out}/mlflow.db")
        mlflow.set_experiment("plain")
        number = config["number"]
        for score in train_tracked(open_material(task, data), known[number], epochs, number, 0):
            tune.report({"score": score})

    ray.init(
        num_cpus=at_once,
        include_dashboard=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join([here, *sys.path])}},
    )
    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1, "gpu": 1 / at_once if DEVICE.type == "cuda" else 0}),
        param_space={"number": tune.grid_search(list(range(len(known))))},
        # A process trains one trial after the other: by default each starts one, and imports torch.
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(out.resolve()), verbose=0),
    )
    results = tuner.fit()
    ray.shutdown()
    print(results.get_dataframe()["score"].tolist())


def main() -> None:
    """Print a line for each way."""
    parser = parser_of(__doc__)
    parser.add_argument("task", choices=tuple(EPOCHS))
    parser.add_argument("--data", type=Path, help="digits: of torchvision's MNIST (default: data)")
    parser.add_argument("--trials", type=int, default=TRIALS, help="of each (default: 6)")
    parser.add_argument("--epochs", type=int, help="of each trial (default: 3 of digits, 10)")
    parser.add_argument("--rounds", type=int, default=2, help="studies of each (default: 2)")
    parser.add_argument(
        "--ways", nargs="+", choices=tuple(GPU_WAYS), help="default: all that the device is for"
    )
    add_record(parser)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # a way, and where it writes
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.epochs = arguments.epochs or EPOCHS[arguments.task]
    if arguments.one:
        label, out = arguments.one
        whose, workers = GPU_WAYS[label]
        run = {OURS: dl4ia_way, PLAIN: plain_way, RAY: ray_way}[whose]
        run(arguments, Path(out), workers)
        return
    ways = arguments.ways or list(GPU_WAYS if gpu() else WAYS)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(arguments.rounds):
        for way in ways:
            with tempfile.TemporaryDirectory() as temporary:
                command = [sys.executable, *sys.argv, "--one", way, temporary + "/out"]
                start = time.perf_counter()
                ended = subprocess.run(command, capture_output=True, text=True)
                took = time.perf_counter() - start
            if ended.returncode:  # the others are measured all the same
                print(f"{way:<24} failed: {ended.stderr.strip()}", flush=True)
                continue
            seconds[way].append(took)
            values = json.loads(ended.stdout.splitlines()[-1])
            print(
                f"{way:<24} {3600 * arguments.trials / took:6.0f} trials an hour  mean score "
                f"{statistics.mean(values):.4f} (best {max(values):.4f})",
                flush=True,
            )
    best: dict[str, float] = {}  # seconds of each one's fastest way
    for way, taken in seconds.items():
        if taken:
            whose = GPU_WAYS[way][0]
            best[whose] = min(best.get(whose, math.inf), statistics.mean(taken))
    peers = [peer for peer in (PLAIN, RAY) if {OURS, peer} <= best.keys()]
    for peer in peers:
        print(f"{OURS}: {best[peer] / best[OURS]:.2f} times {peer}, the fastest ways of both")
    if arguments.record:
        for peer in peers:
            record(
                f"{arguments.task}: trials an hour, against {peer}",
                f"{3600 * arguments.trials / best[OURS]:.0f}",
                f"{3600 * arguments.trials / best[peer]:.0f}",
                f"{best[peer] / best[OURS]:.1f}",
                "10 times" if gpu() else "3 times",
                of_training=True,
            )
    if any(len(taken) < arguments.rounds for taken in seconds.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
