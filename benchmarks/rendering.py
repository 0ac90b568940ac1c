"""What a trial's pictures, and its note for the dashboard, take of its time.

    python benchmarks/rendering.py digits --data data  # MNIST as torchvision leaves it
    python benchmarks/rendering.py glands --data data/WARWICK

A study of the named points, three epochs each, in one process, with a clock on both. A trial of the
default length is so many times as long as the last two of its epochs took here, and renders as
much. Takes about 5 minutes on two cores.
"""

import runpy
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flags import add_record, parser_of
from start import SCRIPTS, STUDIES
from table import record

from dl4ia.command_line.flags import add_digit_flags, add_gland_flags, parse, study_parser
from dl4ia.environment import tune_process

EPOCHS = 3


def main() -> None:
    """Print the median and the largest share."""
    parser = parser_of(__doc__)
    parser.add_argument("task", choices=tuple(SCRIPTS))
    parser.add_argument("--data", type=Path, required=True)
    add_record(parser)
    arguments = parser.parse_args()
    tune_process()
    import optuna
    from materials import open_task

    from dl4ia.report import dashboard
    from dl4ia.search.trials import history_of

    script = runpy.run_path(str(STUDIES / SCRIPTS[arguments.task]))
    source: Any
    _, source, space = open_task(arguments.task, arguments.data)
    points = len(space.REPORT_MODELS) + len(space.REFERENCE_MODELS)
    length = script["EPOCHS"]
    if arguments.task == "digits":
        length = script["default_epochs"](source.training_images)
    flags = study_parser("", data_default="", epochs_default="", retraining_default="")
    (add_gland_flags if arguments.task == "glands" else add_digit_flags)(flags)
    seconds: dict[int, float] = defaultdict(float)  # by the trial's number

    def timed(function: Callable[..., None], place: int) -> Callable[..., None]:
        """place: of the trial among what it is called with."""

        def call(*given: Any) -> None:
            start = time.perf_counter()
            function(*given)
            seconds[given[place].number] += time.perf_counter() - start

        return call

    dashboard.write_trial_pictures = timed(dashboard.write_trial_pictures, 1)
    dashboard.write_trial_note = timed(dashboard.write_trial_note, 3)
    with tempfile.TemporaryDirectory() as out:
        words = ["--data", str(arguments.data), "--out", out, "--study-name", "rendering"]
        words += ["--trials", str(points), "--epochs", str(EPOCHS), "--workers", "1"]
        words += ["--device", "cpu"]
        script["study"](*parse(flags, [*words, "--finalists", "0", "--seeds", "0"]))
        study = optuna.load_study(study_name="rendering", storage=f"sqlite:///{out}/optuna.db")
        trials = study.get_trials()
    shares = {}
    for trial in trials:
        epoch = statistics.mean(history_of(trial)["seconds"][1:])
        shares[trial.number] = seconds[trial.number] / (epoch * length)
    median, most = statistics.median(shares.values()), max(shares.values())
    taken = statistics.median(seconds.values())
    print(
        f"{arguments.task}: pictures and note {1000 * taken:.0f} ms a trial, {median:.2%} of a "
        f"trial of {length} epochs (median of {points}), at most {most:.2%}"
    )
    if arguments.record:
        claim = f"{arguments.task}: pictures and note, of a trial's time"
        figure = f"{1000 * taken:.0f} ms, {median:.2%}; at most {most:.2%}"
        record(claim, figure, goal="2 %")


if __name__ == "__main__":
    main()
