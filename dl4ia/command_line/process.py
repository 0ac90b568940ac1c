"""How a command ends: its exit status, Ctrl-C, and what is said of a user's mistake."""

import atexit
import gc
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from dl4ia.errors import InputError
from dl4ia.text import printable

STOPPED = "Stopped. The same command goes on from here; a training in progress starts over."
GRACE = 5.0  # seconds that a worker has to end by itself

_stopping = False
_uninterrupted, _interrupted = False, False  # whether in such a block; whether it was to be


def print_anything() -> None:
    """What a terminal's encoding has not is written as a question mark, and ends no command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def run_and_exit(work: Callable[[], None], stopped: str = STOPPED) -> NoReturn:
    """Exit status 0, 2 for a user's mistake (one line), 130 after Ctrl-C or SIGTERM.

    stopped: what is said after Ctrl-C.
    """
    print_anything()
    # Else Python looks once more, as it ends, through the million objects of torch and the others
    # for those that nobody needs: five seconds on a busy machine.
    atexit.register(gc.freeze)
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    sys.unraisablehook = _interrupt_again
    try:
        work()
    except InputError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # of `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print("error: nobody reads the output any more", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a full disk, a folder taken away
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"\n{stopped}", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


def end_with_parent() -> None:
    """In a worker: stop as after Ctrl-C when its standard input, a pipe, is closed.

    Call it first of all: what a worker imports takes longer than it may outlive its parent.
    """
    pipe = sys.stdin.fileno()

    def wait() -> None:
        while os.read(pipe, 1):  # not through `sys.stdin`, whose lock would be missed at the exit
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def is_stopping() -> bool:
    """Whether Ctrl-C was pressed: from then on nothing that is away is waited for."""
    return _stopping


class Uninterrupted:
    """Ctrl-C comes at the end of the `with` block; a second one, if that does not end, at once.

    Not to be nested. Nothing is changed where no `run_and_exit` heeds Ctrl-C.
    """

    def __enter__(self) -> None:
        global _uninterrupted, _interrupted
        _interrupted = False
        _uninterrupted = True

    def __exit__(self, *failure: object) -> None:
        global _uninterrupted
        _uninterrupted = False
        if _interrupted:
            raise KeyboardInterrupt


def _stop(signal_number: int, frame: FrameType | None) -> None:
    """SIGTERM ends a command as Ctrl-C does."""
    global _stopping, _interrupted
    _stopping = True
    if _uninterrupted and not _interrupted:
        _interrupted = True
    else:
        raise KeyboardInterrupt


def _interrupt_again(ignored: "sys.UnraisableHookArgs") -> None:
    """Ctrl-C that fell into a destructor, or into the garbage collector's work, comes once more.

    Python drops what is raised there. A moment later, since it would be dropped here as well.
    """
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(ignored)
