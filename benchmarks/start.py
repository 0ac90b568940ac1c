"""How soon a study starts, and how much memory it takes.

    python benchmarks/start.py digits --data data  # MNIST as torchvision leaves it
    python benchmarks/start.py glands --data data/WARWICK  # without --data: drawn glands

Seconds of `--help`, and from the command, in a fresh folder, to the first trial, each the median of
three; and the peak memory of a study of twelve trials (the named points and the first random ones)
of two epochs, in one process. Takes about 5 minutes on two cores.
"""

import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flags import add_record, parser_of
from table import record

STUDIES = Path(__file__).parent.parent / "studies"
SCRIPTS = {"digits": "classification.py", "glands": "segmentation.py"}
TIMES = 3
SILENT: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
STARTED = "select count(*) from trials where state != 'WAITING'"


def help_seconds(command: list[str]) -> float:
    """Of the whole process."""
    start = time.perf_counter()
    subprocess.run([*command, "--help"], check=True, capture_output=True)
    return time.perf_counter() - start


def first_trial_seconds(command: list[str]) -> float:
    """Until a trial has begun; the study is stopped then."""
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        process = subprocess.Popen([*command, "--out", out], **SILENT)
        database = Path(out) / "optuna.db"
        while not (database.exists() and _count(database)):
            if process.poll() is not None:
                sys.exit("the study ended before its first trial")
            time.sleep(0.02)
        taken = time.perf_counter() - start
        process.terminate()
        process.wait()
    return taken


def _count(database: Path) -> int:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        (found,) = connection.execute(STARTED).fetchone()
    except sqlite3.OperationalError:  # its tables are being made
        return 0
    finally:
        connection.close()
    return int(found)


def peak_gigabytes(command: list[str]) -> float:
    """Of the largest of the study's processes, which is the one that trains."""
    with tempfile.TemporaryDirectory() as out:
        flags = ["--trials", "12", "--epochs", "2", "--seeds", "0", "--finalists", "0"]
        words = [*command, *flags, "--workers", "1", "--out", out]
        subprocess.run(words, check=True, capture_output=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6  # which Linux gives in kB


def main() -> None:
    """Print a line for each."""
    parser = parser_of(__doc__)
    parser.add_argument("task", choices=tuple(SCRIPTS))
    parser.add_argument("--data", type=Path, help="default: as the study has it")
    add_record(parser)
    arguments = parser.parse_args()
    script = SCRIPTS[arguments.task]
    command = [sys.executable, str(STUDIES / script)]
    with_data = [*command, "--device", "cpu"]
    with_data += ["--data", str(arguments.data)] if arguments.data else []

    def median(measure: Callable[[list[str]], float], words: list[str]) -> float:
        return statistics.median(measure(words) for _ in range(TIMES))

    def tell(claim: str, figure: str, goal: str = "–") -> None:
        print(f"{claim}: {figure}", flush=True)
        if arguments.record:
            record(claim, figure, goal=goal)

    tell(f"{script} --help", f"{median(help_seconds, command):.2f} s", "1 s")
    first = f"{median(first_trial_seconds, with_data):.1f} s"
    tell(f"{arguments.task}: from the command to the first trial", first, "15 s")
    peak = f"{peak_gigabytes(with_data):.2f} GB"
    tell(f"{arguments.task}: peak memory of a study in one process, CPU", peak)


if __name__ == "__main__":
    main()
