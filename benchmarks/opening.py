"""How long it takes to look into a large study: `dl4ia best` and the Optuna dashboard.

    python benchmarks/opening.py
    python benchmarks/opening.py --trials 1000

A study of so many finished trials of 30 epochs, in SQLite and in MLflow (which writes them for
some minutes). Then, twice each, the first time from files that nobody has read: the command `dl4ia
best`, and what the dashboard's page asks its server for when the study is opened. Both are whole
processes or requests, as a user waits for them; the browser's drawing comes on top.
"""

import http.client
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from control_plane import EPOCHS, fill, finished
from flags import add_record, parser_of
from table import record

from dl4ia.console.ui import DASHBOARD, HOST, Server, free_ports
from dl4ia.environment import tune_process

NAME = "large"


def make_study(out: Path, trials: int) -> None:
    """In `out`: optuna.db and mlflow.db."""
    from dl4ia.command_line.flags import parse, study_parser
    from dl4ia.data.embedded import EmbeddedGlands
    from dl4ia.session import Length, open_session
    from dl4ia.tasks.segmentation import SegmentationTask
    from dl4ia.workflow.recording import open_parent, write_trials
    from search_spaces import segmentation

    arguments, _ = parse(study_parser("", "", "", ""), ["--out", str(out), "--study-name", NAME])
    length = Length(EPOCHS, EPOCHS)
    session = open_session(SegmentationTask(), EmbeddedGlands(), segmentation, length, arguments)
    fill(session.study, list(finished(segmentation.SPACE, trials)))
    parent = open_parent(session)
    start = time.perf_counter()
    write_trials(session, parent, {}, lambda trial, run: None)
    rate = trials / (time.perf_counter() - start)
    print(f"written into MLflow: {rate:.0f} trials a second, of {EPOCHS} epochs each", flush=True)
    session.tracker.close(parent, "FINISHED")


def ask(port: int, path: str) -> int:
    """The size of the answer."""
    connection = http.client.HTTPConnection(HOST, port, timeout=600)
    connection.request("GET", path)
    answer = connection.getresponse()
    size = len(answer.read())
    if answer.status != http.HTTPStatus.OK:
        sys.exit(f"the dashboard answers {path} with {answer.status}")
    return size


def tell(what: str, act: Callable[[], object]) -> str:
    """How long it takes, twice; printed."""
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - start)
    taken = f"{seconds[0]:.1f} s, then {seconds[1]:.1f} s"
    print(f"{what}: {taken}", flush=True)
    return taken


def main() -> None:
    """Print a line for each."""
    parser = parser_of(__doc__)
    parser.add_argument("--trials", type=int, default=10_000, metavar="N")
    add_record(parser)
    arguments = parser.parse_args()
    tune_process()
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        make_study(out, arguments.trials)
        best = [sys.executable, "-m", "dl4ia.console.main", "best", "segmentation"]
        best += ["--tracking-uri", f"sqlite:///{out}/mlflow.db"]
        taken = {
            "dl4ia best": tell(
                "dl4ia best", lambda: subprocess.run(best, check=True, capture_output=True)
            )
        }
        (port,) = free_ports(1)
        words = [sys.executable, "-c", DASHBOARD, "--host", HOST, "--port", str(port)]
        server = Server(
            "optuna-dashboard", "/dashboard", [*words, f"sqlite:///{out}/optuna.db"], port
        )
        try:
            while not server.answers():
                time.sleep(0.2)
            for what, path in (("list of studies", ""), ("study", "/1")):
                name = f"the dashboard's {what}"
                taken[name] = tell(name, partial(ask, port, f"/api/studies{path}"))
        finally:
            server.stop()
    if arguments.record:
        for what, seconds in taken.items():
            record(f"opening a study of {arguments.trials:,} trials: {what}", seconds)


if __name__ == "__main__":
    main()
