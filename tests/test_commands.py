"""Commands that are forked, not started, say and do the same (commands.py)."""

import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from commands import IMPORTED, Command, run_command

SCRIPT = """
import atexit, os, sys, threading, time
from neighbour import word
atexit.register(print, "as Python ends")
threading.Thread(target=lambda: (time.sleep(0.2), print("from a thread"))).start()
print(__name__, sys.argv[1:], os.getcwd(), os.environ.get("WORD"), word, sys.stdin.read())
print("a mistake", file=sys.stderr)
{end}
"""


@pytest.mark.parametrize(
    "end", ["", "sys.exit(3)", "raise ValueError('an error')", "os.kill(os.getpid(), 9)"]
)
def test_it_is_as_if_it_had_been_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    (tmp_path / "neighbour.py").write_text("word = 'beside it'")
    (tmp_path / "script.py").write_text(SCRIPT.format(end=end))
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.setenv("WORD", "of the test")
    words = [sys.executable, str(tmp_path / "script.py"), "--flag", "value"]
    started = subprocess.run(
        words, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    forked = run_command(words, folder)
    assert forked.returncode == started.returncode
    if end.startswith("os.kill"):  # what was in the buffer of a file is lost, and of a pipe too
        return
    assert forked.stdout == started.stdout and "['--flag', 'value']" in forked.stdout
    assert forked.stderr.splitlines()[0] == "a mistake"
    assert forked.stderr.splitlines()[-1] == started.stderr.splitlines()[-1]


def test_what_is_imported_beforehand_is_there() -> None:
    """What is not is passed over without a word, and imported by each command anew."""
    assert not [module for module in IMPORTED if find_spec(module) is None]


def test_it_is_stopped_as_one_that_was_started(tmp_path: Path) -> None:
    script, said = tmp_path / "script.py", tmp_path / "said.txt"
    script.write_text("import time\nprint('begun')\ntime.sleep(600)")
    for number in (signal.SIGTERM, signal.SIGKILL):
        said.write_text("")
        process = Command([sys.executable, str(script)], tmp_path, said, said)
        while said.read_text() != "begun\n":
            assert process.poll() is None
            time.sleep(0.05)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
        process.send_signal(number)
        assert process.wait(30) == process.poll() == -number
