import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dl4ia.command_line.flags import StudyArguments, add_gland_flags, run, study_parser
from dl4ia.command_line.flags import parse as parse_flags
from dl4ia.errors import InputError

SCRIPT = Path(__file__).parent.parent / "studies" / "segmentation.py"


def parse(*words: str) -> StudyArguments:
    parser = study_parser("A study.", "data/X", "27", "81")
    add_gland_flags(parser)
    return parse_flags(parser, words)[0]


def test_defaults() -> None:
    arguments = parse()
    assert (arguments.trials, arguments.out, arguments.folds) == (50, Path("mlruns"), 1)
    assert (arguments.seed, arguments.seeds, arguments.device) == (0, 5, "auto")
    assert (arguments.finalists, arguments.repeats, arguments.objectives) == (5, 5, ())
    assert arguments.timeout is None and arguments.epochs is None
    assert arguments.split_by == "image"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5h", 5400), ("90m", 5400), ("2h", 7200), ("1d", 86400)]
)
def test_times(text: str, seconds: float) -> None:
    assert parse("--timeout", text).timeout == seconds


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--trials", "0"),
        ("--trials", "-3"),
        ("--trials", "many"),
        ("--trials", "1.5"),
        ("--epochs", "0"),
        ("--folds", "0"),
        ("--seed", "-1"),
        ("--seeds", "-1"),
        ("--timeout", "0"),
        ("--timeout", "2 weeks"),
        ("--image-shift", "1"),
        ("--image-shift", "nan"),
        ("--device", "tpu"),
        ("--split-by", "patients"),
        ("--finalists", "-1"),
        ("--repeats", "1"),
        ("--objectives", "dice"),
        ("--objectives", "dice,weight"),
        ("--objectives", "dice,weights,weights"),
        ("--study-name", ""),
        ("--study-name", "glands-v1.2"),
        ("--study-name", "../up"),
        ("--study-name", "<script>"),
        ("--study-name", "a" * 101),
    ],
)
def test_bad_values_get_one_line_and_status_2(
    flag: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(flag, value)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert flag in line and repr(value) in line


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (InputError("file.png: wrong"), 2, "error: file.png: wrong\n"),
        (KeyboardInterrupt(), 130, "The same command goes on"),
    ],
)
def test_how_a_run_ends(
    raised: BaseException,
    status: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def study(arguments: StudyArguments, flags: argparse.Namespace) -> None:
        raise raised

    monkeypatch.setattr(sys, "argv", ["study"])
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    with pytest.raises(SystemExit) as stopped:
        run(study_parser("A study.", "data/X", "27", "81"), study)
    assert stopped.value.code == status
    assert said in capsys.readouterr().err


def run_code(code: str, timeout: float | None = None) -> "subprocess.CompletedProcess[str]":
    """In a Python of its own; timeout: seconds."""
    words = [sys.executable, "-c", code]
    return subprocess.run(words, capture_output=True, text=True, timeout=timeout)


def test_ctrl_c_in_a_destructor_is_not_lost() -> None:
    code = (
        "import os, signal, time\n"
        "from dl4ia.command_line.process import run_and_exit\n"
        "class Struck:\n"
        "    def __del__(self): os.kill(os.getpid(), signal.SIGINT); time.sleep(1)\n"
        "def work():\n"
        "    Struck()\n"
        "    time.sleep(50)\n"
        "run_and_exit(work)"
    )
    ended = run_code(code, timeout=40)
    assert ended.returncode == 130
    assert ended.stderr.strip().startswith("Stopped.") and "Traceback" not in ended.stderr


UNINTERRUPTED = """
import os, signal, time
from dl4ia.command_line.process import Uninterrupted, is_stopping, run_and_exit
def work():
    with Uninterrupted():
        for number in {signals}:
            os.kill(os.getpid(), number)
        print("done", is_stopping())
        {rest}
    print("never")
run_and_exit(work)
"""


@pytest.mark.parametrize(
    ("signals", "rest", "said"),
    [
        ("[signal.SIGINT]", "", "done True\n"),
        ("[signal.SIGTERM]", "raise OSError('a disk')", "done True\n"),
        ("[signal.SIGTERM, signal.SIGINT]", "", ""),  # a second one is not waited with
        ("[]", "raise KeyboardInterrupt", "done False\n"),
    ],
)
def test_ctrl_c_comes_at_the_end_of_what_is_uninterrupted(
    signals: str, rest: str, said: str
) -> None:
    ended = run_code(UNINTERRUPTED.format(signals=signals, rest=rest), timeout=40)
    assert (ended.returncode, ended.stdout) == (130, said)
    assert ended.stderr.strip().startswith("Stopped.") and "Traceback" not in ended.stderr


def test_nothing_is_looked_through_at_the_end() -> None:
    """It took as long as all else that Ctrl-C does."""
    code = (
        "import atexit, gc\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 1000))\n"
        "from dl4ia.command_line.process import run_and_exit\n"
        "run_and_exit(lambda: None)"
    )
    ended = run_code(code)
    assert (ended.returncode, ended.stdout) == (0, "True\n")


def test_a_worker_imports_only_what_it_trains_with() -> None:
    """The others take as long again; they are imported where they are first needed."""
    code = (
        "import sys, dl4ia.workflow.whole_study\n"
        "import dl4ia.tasks.classification, dl4ia.tasks.segmentation\n"
        "print({'mlflow', 'matplotlib', 'optuna_dashboard', 'pandas', 'plotly', 'sklearn'}"
        " & set(sys.modules), 'torch' in sys.modules)"
    )
    answer = run_code(code)
    assert answer.stdout == "set() True\n", answer.stderr


def test_a_terminal_without_our_signs_is_no_mistake() -> None:
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), "--help"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0 and not ended.stderr and "?" in ended.stdout


def test_help_shows_the_defaults_and_loads_no_torch() -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{str(SCRIPT)!r}, '--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally: print({'torch', 'optuna', 'mlflow', 'numpy'} & set(sys.modules))"
    )
    answer = run_code(code)
    assert answer.returncode == 0
    assert answer.stdout.splitlines()[-1] == "set()"
    for flag in ("--trials", "--data", "--out", "--study-name", "--storage", "--tracking-uri",
                 "--epochs", "--folds", "--split-by", "--seed", "--device",
                 "--timeout"):  # fmt: skip
        assert flag in answer.stdout
    assert "default: 50" in answer.stdout and "default: 60" in answer.stdout


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_who_is_stopped_waits_for_nothing(name: str) -> None:
    """Such as a database that is away, for which ten minutes are waited otherwise."""
    code = (
        "import os, signal, time, optuna, sqlalchemy\n"
        "from dl4ia.command_line.process import run_and_exit\n"
        "from dl4ia.search.patience import patiently\n"
        "def ask():\n"
        "    raise sqlalchemy.exc.OperationalError('', {}, Exception('gone'))\n"
        "def work():\n"
        f"    try: os.kill(os.getpid(), signal.{name}); time.sleep(50)\n"
        "    finally:\n"
        "        try: patiently(ask)\n"
        "        except sqlalchemy.exc.OperationalError: print('told at once')\n"
        "run_and_exit(work)"
    )
    ended = run_code(code, timeout=60)
    assert (ended.returncode, ended.stdout) == (130, "told at once\n")
