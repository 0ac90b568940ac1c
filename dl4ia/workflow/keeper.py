"""Writing what has finished into MLflow and the dashboard, beside the search.

In a thread, so that no trial waits for it, and so that trials go on while MLflow is away.
"""

import threading
from functools import partial

from optuna.exceptions import StorageInternalError
from tqdm import tqdm

from dl4ia.errors import TrackingError, first_line
from dl4ia.report import dashboard
from dl4ia.search.turns import KEEP, TurnLost
from dl4ia.session import Session
from dl4ia.workflow.recording import write_trials

OFTEN, SELDOM = 1.0, 15.0  # seconds between two looks, and after MLflow has failed


class Keeper:
    """Keeps a study's records from `with` on; at the end all of them are written.

    One process alone may keep a study's records.
    """

    def __init__(self, session: Session, parent: str) -> None:
        """parent: the study's run in MLflow."""
        self._session, self._parent = session, parent
        self._written = session.tracker.find(session.name, "trial")
        self._wake = threading.Event()
        self._failed = False
        self._note = partial(
            dashboard.write_trial_note, session.study, session.task.metric, session.tracking_uri
        )
        for trial in dashboard.trials_without_note(session.study, self._written):
            if str(trial.number) in self._written:
                self._note(trial, self._written[str(trial.number)])

    def __enter__(self) -> "Keeper":
        self._done = False
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._done = True
        self._wake.set()
        self._thread.join()

    def look(self) -> None:
        """There is something new."""
        self._wake.set()

    def write_missing(self) -> None:
        """Raises TrackingError where MLflow fails, StorageInternalError where the storage does.

        The next call writes what is missing then. Raises TurnLost where another process keeps the
        records by now.
        """
        session = self._session
        session.turns.confirm(KEEP)
        try:
            if self._failed:  # what was half written is discarded, what was written is known
                session.tracker.discard_unfinished(session.name)
                self._written = session.tracker.find(session.name, "trial")
                self._failed = False
            write_trials(session, self._parent, self._written, self._note)
        except (TrackingError, StorageInternalError):
            self._failed = True
            raise

    def _keep(self) -> None:
        told = False
        while not self._done:
            pause = OFTEN
            try:
                self.write_missing()
            except TrackingError as error:
                pause = SELDOM
                if not told:
                    tqdm.write(
                        f"MLflow fails ({first_line(error)}): trials go on, and are written when "
                        "it is back"
                    )
                told = True
            except TurnLost:
                return  # this process hears of it before it writes anything itself
            except StorageInternalError:  # as on a full disk: the search meets it too, and says so
                pause = SELDOM
            self._wake.wait(pause)
            self._wake.clear()
