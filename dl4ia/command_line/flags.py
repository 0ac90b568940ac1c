"""The flags of the studies. Imports nothing heavy: `--help` answers at once."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NoReturn

from dl4ia.command_line.flag_types import (
    ALL,
    choices,
    objectives,
    pixels,
    seconds,
    share,
    study_name,
    values,
    whole_number,
)
from dl4ia.command_line.process import end_with_parent, print_anything, run_and_exit
from dl4ia.text import printable


@dataclass(frozen=True)
class StudyArguments:
    """What the user asked for; None where that was not said.

    worker, jobs, until: of a process that another one has started.
    """

    trials: int
    points: Path | None
    data: Path | None
    out: Path
    study_name: str | None
    storage: str | None
    tracking_uri: str | None
    epochs: int | None
    retraining_epochs: int | None
    folds: int
    split_by: str
    seed: int
    seeds: int
    device: str
    timeout: float | None
    within: Sequence[tuple[str, str]]
    most_weights: int | None
    objectives: tuple[str, ...]
    knee: bool
    finalists: int
    repeats: int
    ablate: tuple[str, ...]
    reopen_test: bool
    workers: int | None
    ray: str | None
    gpus_per_worker: float | None
    worker: bool
    jobs: Path | None
    until: float | None


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {printable(message)}\n")


def study_parser(
    description: str, data_default: str, epochs_default: str, retraining_default: str
) -> OneLineParser:
    """The flags of a study script."""
    parser = OneLineParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument_group("the study").add_argument
    add("--data", type=Path, metavar="DIR", help=f"the images (default: {data_default})")
    add(
        "--study-name",
        type=study_name,
        metavar="NAME",
        help="default: the task and the data's name",
    )
    add(
        "--out",
        type=Path,
        default=Path("mlruns"),
        metavar="DIR",
        help="where everything is written (default: %(default)s)",
    )
    add("--storage", metavar="URL", help="Optuna's database (default: sqlite:///OUT/optuna.db)")
    add("--tracking-uri", metavar="URI", help="MLflow's (default: sqlite:///OUT/mlflow.db)")
    add = parser.add_argument_group("the search").add_argument
    add(
        "--trials",
        type=whole_number(1),
        default=50,
        metavar="N",
        help="finished trials in the study, those of earlier runs included (default: %(default)s)",
    )
    add(
        "--points",
        type=Path,
        metavar="FILE",
        help="points to try after the named models, before the search chooses its own: another "
        "study's study.json, or a JSON list of objects of hyperparameters",
    )
    add(
        "--within",
        type=values,
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUES",
        help="search a part of the space: some values of a choice, a number, or LOW..HIGH, of "
        "hyperparameters where they apply, e.g. base_width=8,16 normalization=batch "
        "learning_rate=0.001..0.01; leaves out the named points outside, the report's too "
        "(default: all of search_spaces/README.md)",
    )
    add(
        "--most-weights",
        type=whole_number(1),
        metavar="N",
        help="skip networks of more trainable weights, the report's too (default: no limit)",
    )
    add(
        "--objectives",
        type=objectives,
        default=(),
        metavar="A,B",
        help="several goals at once, without pruning: the metric, and weights or seconds (an "
        "epoch's, which compare where all trials have as much of the same machine: one worker is "
        "the default then) or both, e.g. accuracy,weights; ends with the Pareto front (default: "
        "the metric)",
    )
    add(
        "--knee",
        action="store_true",
        help="with --objectives: the front's point nearest to the best of all goals wins, and is "
        "retrained and scored",
    )
    add(
        "--seed",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="of the split, the sampler and all trials (default: %(default)s)",
    )
    add = parser.add_argument_group("a trial").add_argument
    add(
        "--epochs",
        type=whole_number(1),
        metavar="N",
        help=f"epochs of a full trial (default: {epochs_default})",
    )
    add(
        "--folds",
        type=whole_number(1),
        default=1,
        metavar="K",
        help="cross-validate each trial over K folds (default: 1, one 80/20 split)",
    )
    add(
        "--split-by",
        choices=("image", "patient"),
        default="image",
        help="patient: nobody's images are both trained on and validated; of gland folders with a "
        "patients.csv (default: %(default)s)",
    )
    add = parser.add_argument_group("the winner").add_argument
    add(
        "--finalists",
        type=whole_number(0),
        default=5,
        metavar="N",
        help="best trials, and the report's best, trained again on fresh splits and seeds before "
        "one of them wins; 0: the search's best wins, as the knee of several objectives always "
        "does (default: %(default)s)",
    )
    add(
        "--repeats",
        type=whole_number(2),
        default=5,
        metavar="N",
        help="fresh splits and seeds for each finalist (default: %(default)s)",
    )
    add(
        "--ablate",
        nargs="?",
        type=choices,
        default=(),
        const=ALL,
        metavar="A,B",
        help="also turn the winner's choices back to the report's, one at a time, over as many "
        "repeats again, all of them or those named, e.g. dropout,schedule: costs as many full "
        "trials as choices, and one more, times repeats",
    )
    add(
        "--seeds",
        type=whole_number(0),
        default=5,
        metavar="N",
        help="retrainings of the winner, and of the report's best model beside it; 0: the test set "
        "stays shut, and the study ends with who wins (default: %(default)s)",
    )
    add(
        "--retraining-epochs",
        type=whole_number(1),
        metavar="N",
        help="epochs of the winner's retrainings; where they are not a trial's, the winner is "
        f"validated over as many first (default: {retraining_default}, or --epochs where given)",
    )
    add(
        "--reopen-test",
        action="store_true",
        help="score a new winner although the test set was opened before; it is counted",
    )
    add = parser.add_argument_group("where it runs, and how long").add_argument
    add(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="default: cuda where there is one",
    )
    add(
        "--workers",
        type=whole_number(1),
        metavar="N",
        help="processes that train at once, each on its share of the cores, or on a GPU, which "
        "more workers than GPUs share; the same command may run several times too, also on other "
        "machines with --storage postgresql://… (default: one a GPU; or one a core, but at most "
        "one for every 3 GB of free memory; in the search at most one for every 6 --trials)",
    )
    add(
        "--ray",
        metavar="ADDRESS",
        help="run the workers as tasks of this Ray cluster; local: of one that is started here "
        "(pip install -e '.[cluster]')",
    )
    add(
        "--gpus-per-worker",
        type=share,
        metavar="SHARE",
        help="with --ray: of a GPU, or several, e.g. 0.25 (default: 1 where this machine has one, "
        "or 0)",
    )
    add(
        "--timeout",
        type=seconds,
        metavar="TIME",
        help="start no further trial this long after the search's start, e.g. 5400, 90m or 2h; "
        "with trials missing the test set stays shut, else finalists and retrainings follow "
        "(default: none)",
    )
    add("--worker", action="store_true", help=argparse.SUPPRESS)  # is one of these
    add("--jobs", type=Path, help=argparse.SUPPRESS)  # in this folder, instead of trials
    add("--until", type=float, help=argparse.SUPPRESS)  # seconds since 1970: of the whole timeout
    return parser


def add_gland_flags(parser: OneLineParser) -> None:
    """How the images of a gland folder are read."""
    add = parser.add_argument_group("the images").add_argument
    add(
        "--image-shift",
        type=pixels,
        metavar="PIXELS",
        help="move the images' content down and right before anything else (default: 0.5 for the "
        "course's images, which aligns them with their labels, and 0 for any others)",
    )
    add(
        "--channels",
        choices=("auto", "grey", "stain", "rgb", "rgba"),
        default="auto",
        help="how images are read; stain: red and green, blue must be 0 (default: grey of images "
        "without colours, rgba where each has a fourth channel that varies, rgb where each has "
        "blue, else stain)",
    )


def add_digit_flags(parser: OneLineParser) -> None:
    """Which digits, and how the images of class folders are read."""
    add = parser.add_argument_group("the images").add_argument
    add(
        "--small-digits",
        action="store_true",
        help="take the 1,797 digits that scikit-learn ships (8x8 pixels, enlarged), to try the "
        "program out",
    )
    add(
        "--channels",
        choices=("auto", "grey", "rgb"),
        default="auto",
        help="how the images of class folders are read (default: rgb where any of the training "
        "images has a colour, else grey)",
    )


def parse(
    parser: OneLineParser, words: Sequence[str] | None = None
) -> tuple[StudyArguments, argparse.Namespace]:
    """What every study knows, and all flags, the script's own among them."""
    flags = parser.parse_args(words)
    common = {field.name: getattr(flags, field.name) for field in fields(StudyArguments)}
    return StudyArguments(**common), flags


def run(
    parser: OneLineParser, study: Callable[[StudyArguments, argparse.Namespace], None]
) -> NoReturn:
    """Parse, run, and exit as `run_and_exit` does."""
    print_anything()
    arguments, flags = parse(parser)

    def work() -> None:
        if arguments.worker:
            end_with_parent()
        study(arguments, flags)

    run_and_exit(work)
