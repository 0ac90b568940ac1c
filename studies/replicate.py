"""Train the report's models as it trained them, and print its tables with ours beside.

    python studies/replicate.py --digits data --glands data/WARWICK
    python studies/replicate.py --only table-5 --seeds 1

Every row is a point of the search spaces, trained with the report's epochs, batches, weights to
begin with and (its sign mended) schedule; ours are mean ± SD over seeds. The test images are read,
as the report read them; nothing is chosen by them. What is trained already is not trained again.
Ends with mlruns/reports/replication.html and .md; every training is a run in MLflow's experiment
`replication`. --only leaves the other tables as they were.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from dl4ia.command_line.flag_types import whole_number
from dl4ia.command_line.flags import OneLineParser
from dl4ia.command_line.process import run_and_exit
from dl4ia.environment import tune_process
from dl4ia.errors import InputError

DIGITS, GLANDS = Path("data"), Path("data/WARWICK")
QUICK_EPOCHS, QUICK_IMAGES = 2, 300


def run(flags: argparse.Namespace) -> None:
    """Train, print, write."""
    tune_process()
    from report_tables import ILLUSTRATIONS, TABLES

    from dl4ia.addresses import check_folder, check_tracking, database_in
    from dl4ia.markdown import around_marks
    from dl4ia.replication.benches import is_stand_in, open_bench
    from dl4ia.replication.run import (
        EXPERIMENT,
        MARK,
        kept_outcomes,
        replicate,
        write_into,
        write_reports,
    )
    from dl4ia.tracking.writing import Tracker

    known = [table.name for table in TABLES]
    if unknown := set(flags.only or known) - set(known):
        raise InputError(f"--only {', '.join(sorted(unknown))}: expected {', '.join(known)}")
    tables, name, images = list(TABLES), EXPERIMENT, sys.maxsize
    if flags.quick:
        tables = [table.shortened(QUICK_EPOCHS) for table in tables]
        name, images = f"{EXPERIMENT}-quick", QUICK_IMAGES
    if flags.readme:
        around_marks(flags.readme, MARK)
    check_folder(flags.out)
    uri = flags.tracking_uri or database_in(flags.out, "mlflow.db")
    check_tracking(uri)
    data = {"classification": (flags.digits, DIGITS), "segmentation": (flags.glands, GLANDS)}
    benches = {
        task: open_bench(task, *data[task], flags.out, name, flags.device, images) for task in data
    }
    for bench in benches.values():
        print(f"Data: {bench.source.description}", flush=True)
    others = {task for task, bench in benches.items() if is_stand_in(bench.source)}
    tables = [
        replace(table, remark="") if {row.training.task for row in table.rows} & others else table
        for table in tables
    ]
    flags.out.mkdir(parents=True, exist_ok=True)
    tracker = Tracker(uri, name, flags.out / "artifacts" / "mlflow")
    asked_for = [table for table in tables if table.name in (flags.only or known)]
    replicate(asked_for, benches, flags.seeds, tracker)
    outcomes = kept_outcomes(tables, benches)
    files = write_reports(flags.out / "reports", name, tables, ILLUSTRATIONS, outcomes, benches)
    if flags.readme:
        write_into(flags.readme, tables, outcomes, benches)
        files.append(flags.readme)
    print("\nWritten: " + ", ".join(map(str, files)))


def parser() -> OneLineParser:
    """The flags."""
    made = OneLineParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("--digits", type=Path, metavar="DIR", help=f"MNIST (default: {DIGITS}, or small digits)")
    add("--glands", type=Path, metavar="DIR", help=f"default: {GLANDS}, or drawn glands")
    add("--seeds", type=whole_number(1), default=3, metavar="N", help="default: %(default)s")
    add("--only", nargs="+", metavar="TABLE", help="table-2, exercise-2-3, … (default: all)")
    add("--quick", action="store_true", help="two epochs on few images: to try it out")
    add("--out", type=Path, default=Path("mlruns"), metavar="DIR", help="default: %(default)s")
    add("--readme", type=Path, metavar="FILE", help="write the short table between its marks too")
    add("--tracking-uri", metavar="URI", help="MLflow's (default: sqlite:///OUT/mlflow.db)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")
    return made


if __name__ == "__main__":
    arguments = parser().parse_args()
    run_and_exit(lambda: run(arguments))
