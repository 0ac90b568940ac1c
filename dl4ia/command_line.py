"""The flags that every study has. Imports nothing heavy: `--help` answers at once."""

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NoReturn

from dl4ia.process import end_with_parent, run_and_exit
from dl4ia.text import printable

FURTHER_OBJECTIVES = ("weights", "seconds")  # besides the metric; lower is better
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class StudyArguments:
    """What the user asked for; None where the default depends on the data."""

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
    most_weights: int | None
    objectives: tuple[str, ...]
    knee: bool
    finalists: int
    repeats: int
    ablate: bool
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
    add = parser.add_argument
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
        help="points to try after the report's models, before the search chooses its own: another "
        "study's study.json, or a JSON list of objects of hyperparameters",
    )
    add("--data", type=Path, metavar="DIR", help=f"the images (default: {data_default})")
    add(
        "--out",
        type=Path,
        default=Path("mlruns"),
        metavar="DIR",
        help="where everything is written (default: %(default)s)",
    )
    add("--study-name", type=_name, metavar="NAME", help="default: the task and the data's name")
    add("--storage", metavar="URL", help="Optuna's database (default: sqlite:///OUT/optuna.db)")
    add("--tracking-uri", metavar="URI", help="MLflow's (default: sqlite:///OUT/mlflow.db)")
    add(
        "--epochs",
        type=whole_number(1),
        metavar="N",
        help=f"epochs of a full trial (default: {epochs_default})",
    )
    add(
        "--retraining-epochs",
        type=whole_number(1),
        metavar="N",
        help="epochs of the winner's retrainings; where they are not a trial's, the winner is "
        f"validated over as many first (default: {retraining_default}, or --epochs where given)",
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
    add(
        "--seed",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="of the split, the sampler and all trials (default: %(default)s)",
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
        "--most-weights",
        type=whole_number(1),
        metavar="N",
        help="skip networks of more trainable weights, the report's too (default: no limit)",
    )
    add(
        "--objectives",
        type=_objectives,
        default=(),
        metavar="A,B",
        help="several goals at once, without pruning: the metric, and weights or seconds (an "
        "epoch's) or both, e.g. accuracy,weights; ends with the Pareto front (default: the metric)",
    )
    add(
        "--knee",
        action="store_true",
        help="with --objectives: the front's point nearest to the best of all goals wins, and is "
        "retrained and scored",
    )
    add(
        "--finalists",
        type=whole_number(0),
        default=5,
        metavar="N",
        help="best trials, and the report's best, trained again on fresh splits and seeds before "
        "one of them wins; 0: the search's best wins (default: %(default)s)",
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
        action="store_true",
        help="also turn the winner's choices back to the report's, one at a time, over the same "
        "repeats: costs as many full trials as choices times repeats",
    )
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
        help="processes that train at once, each on its share of the cores or a GPU of its own; "
        "the same command may run several times too, also on other machines with --storage "
        "postgresql://… (default: one a GPU; or one for every four cores, of digits every core, "
        "and at most one for every 3 GB of free memory)",
    )
    add(
        "--ray",
        metavar="ADDRESS",
        help="run the workers as tasks of this Ray cluster; local: of one that is started here "
        "(pip install -e '.[cluster]')",
    )
    add(
        "--gpus-per-worker",
        type=_share,
        metavar="SHARE",
        help="with --ray: of a GPU, or several, e.g. 0.25 (default: 1 with --device cuda, or 0)",
    )
    add("--worker", action="store_true", help=argparse.SUPPRESS)  # is one of these
    add("--jobs", type=Path, help=argparse.SUPPRESS)  # in this folder, instead of trials
    add("--until", type=float, help=argparse.SUPPRESS)  # seconds since 1970: of the whole timeout
    add(
        "--timeout",
        type=_seconds,
        metavar="TIME",
        help="start no further trial after this long, e.g. 5400, 90m or 2h; with trials missing "
        "the test set stays shut (default: none)",
    )
    add(
        "--reopen-test",
        action="store_true",
        help="score a new winner although the test set was opened before; it is counted",
    )
    return parser


def add_gland_flags(parser: OneLineParser) -> None:
    """How the images of a gland folder are read."""
    parser.add_argument(
        "--image-shift",
        type=_pixels,
        metavar="PIXELS",
        help="move the images' content down and right before anything else (default: 0.5 for the "
        "course's images, which aligns them with their labels, and 0 for any others)",
    )
    parser.add_argument(
        "--channels",
        choices=("auto", "grey", "stain", "rgb", "rgba"),
        default="auto",
        help="how images are read; stain: red and green, blue must be 0 (default: grey of images "
        "without colours, rgba where each has a fourth channel that varies, rgb where each has "
        "blue, else stain)",
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
    arguments, flags = parse(parser)

    def work() -> None:
        if arguments.worker:
            end_with_parent()
        study(arguments, flags)

    run_and_exit(work)


def whole_number(lowest: int) -> Callable[[str], int]:
    """For `type=`: an int of at least `lowest`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < lowest:
            raise argparse.ArgumentTypeError(
                f"{text!r}: expected a whole number from {lowest} to 999999999"
            )
        return int(text)

    return parse


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", text):  # it names a model and a folder
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected up to 100 letters, digits, - and _, a letter or digit first"
        )
    return text


def _seconds(text: str) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text)
    if not match or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds, or a time such as 90m or 2h")
    return float(match[1]) * UNITS[match[2]]


def _share(text: str) -> float:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) or (float(text) > 1 and float(text) % 1):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a share of a GPU such as 0.25, or a whole number"
        )
    return float(text)


def _objectives(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    known = all(name in FURTHER_OBJECTIVES for name in names[1:])
    if len(names) < 2 or not known or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected the metric and then {' or '.join(FURTHER_OBJECTIVES)}, or both, "
            "with commas between"
        )
    return names


def _pixels(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected pixels from 0 to below 1, such as 0.5"
        )
    return value
