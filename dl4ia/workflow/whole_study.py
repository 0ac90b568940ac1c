"""A whole study, from data to summary: what `studies/*.py` run."""

from dataclasses import asdict
from functools import partial

from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from dl4ia.addresses import hide_password, this_command
from dl4ia.command_line.flags import StudyArguments
from dl4ia.data.dataset import Source
from dl4ia.errors import InputError, TrackingError, first_line
from dl4ia.report import dashboard, terminal
from dl4ia.report.findings import describe
from dl4ia.report.notes import study_description
from dl4ia.search.pareto import pareto_front
from dl4ia.search.trials import ended_trials, finished_trials
from dl4ia.search.turns import KEEP, TurnLost
from dl4ia.search_space import SpaceModule
from dl4ia.selection.finalists import Selection
from dl4ia.selection.ranking import best_value
from dl4ia.session import Length, Session, open_session
from dl4ia.tasks.task import Task
from dl4ia.tracking.runs import Status
from dl4ia.workflow.ablation import ablation_is_done, run_ablation
from dl4ia.workflow.ahead import Ahead, work_ahead
from dl4ia.workflow.finalists import current_selection, run_finalists, train_repeat
from dl4ia.workflow.keeper import Keeper
from dl4ia.workflow.recording import (
    closed_if_cut_off,
    open_parent,
    repeats_are_written,
    write_repeats,
)
from dl4ia.workflow.retrainings import train_retraining, train_validation
from dl4ia.workflow.trials import Trials, train_trials
from dl4ia.workflow.winner import (
    check_winner,
    score_winner,
    scoring_is_done,
    track_winner,
    winner_is_tracked,
)


def run_study(
    task: Task, source: Source, searched: SpaceModule, length: Length, arguments: StudyArguments
) -> None:
    """Search, name and score the winner, print the summary; or go on with what is missing.

    Raises InputError for what the user must mend, KeyboardInterrupt after Ctrl-C.
    """
    session = open_session(task, source, searched, length.or_asked(arguments), arguments)
    try:
        if arguments.worker:
            _work(session)
            return
        if not _is_complete(session):
            _run(session)
    except TrackingError as error:
        raise InputError(
            f"MLflow at {hide_password(session.tracking_uri)} failed ({first_line(error)}); the "
            f"study {session.name!r} is intact: when MLflow is back, the same command goes on and "
            "writes what is missing"
        ) from error
    except StorageInternalError as error:
        raise InputError(
            f"--storage {hide_password(session.storage)} failed ({first_line(error)}); when it is "
            "back, the same command goes on"
        ) from error
    missing = arguments.trials - len(finished_trials(session.study))
    if missing > 0:
        print(terminal.unfinished(session.study, task.metric, missing))
        return
    if _wants_front(arguments):
        print(terminal.front(session.study, session.front_picture))
        return
    selection = current_selection(session)
    if selection is None or not scoring_is_done(session, selection):
        print("All trials have finished. The process that keeps the records names the winner.")
        return
    print(terminal.summary(session, selection))


def _work(session: Session) -> None:
    """As one of several workers: what is asked for, or trials."""
    if session.arguments.jobs:
        ways = {
            "repeat": train_repeat,
            "retraining": train_retraining,
            "validation": train_validation,
        }
        work_ahead(session.arguments.jobs, {kind: partial(ways[kind], session) for kind in ways})
    else:
        train_trials(session)


def _is_complete(session: Session) -> bool:
    """Whether there is nothing left to do but to print the summary."""
    if len(finished_trials(session.study)) < session.arguments.trials:
        return False
    ended = ended_trials(session.study)
    tracked = session.tracker.find(session.name, "trial")
    if not {str(trial.number) for trial in ended} <= tracked.keys():
        return False
    (parent, *_) = [*session.tracker.find(session.name, "study").values(), ""]
    if _wants_front(session.arguments):
        written = dashboard.study_is_written(session, None, parent, tracked)
        return written and session.front_picture.exists()
    selection = current_selection(session)
    if selection is None or not scoring_is_done(session, selection):
        return False
    if session.arguments.ablate and not ablation_is_done(session, selection):
        return False
    if not (repeats_are_written(session) and winner_is_tracked(session)):
        return False
    written = dashboard.study_is_written(session, selection, parent, tracked)
    return written and session.page.exists()


def _run(session: Session) -> None:
    """Whatever is missing. One process keeps the records and names the winner; others train."""
    for searched in (False, True):
        with session.turns.take(KEEP, wait=False) as mine:
            if mine:
                try:
                    _keep(session)
                except TurnLost:
                    print("This process lost its database: another one keeps the records now.")
                return
        if not searched:
            print("Another process keeps this study's records: this one trains trials alone.")
            with Trials(session) as trials:
                trials.run()


def _keep(session: Session) -> None:
    """The search, the finalists and the winner, and all that is known of them in MLflow."""
    with Trials(session) as trials:  # their workers start up while MLflow is opened
        parent = open_parent(session)
        selection = None
        with closed_if_cut_off(lambda: _close_parent(session, parent, "KILLED", selection)):
            with Keeper(session, parent) as keeper:
                session.study.set_user_attr("data", asdict(session.data))  # for `dl4ia sync`
                session.study.set_user_attr("command", this_command())
                dashboard.write_study(session, None, parent)
                trials.run(keeper.look)
                dashboard.write_study(session, None, parent)
                complete = len(finished_trials(session.study)) >= session.arguments.trials
                if complete:
                    session.turns.confirm(KEEP)
                    selection = _finish(session)
            keeper.write_missing()
            if selection is not None:
                write_repeats(session, parent)
                from dl4ia.report.study_page import write_study_page  # slow to import

                track_winner(session, parent, write_study_page(session, selection))
                dashboard.write_study(session, selection, parent)
        _close_parent(session, parent, "FINISHED" if complete else "KILLED", selection)


def _close_parent(
    session: Session, parent: str, status: Status, selection: Selection | None
) -> None:
    """The study's own run in MLflow, with what is known by now."""
    best = best_value(session.study)
    metrics = {} if best is None else {f"best_val_{session.task.metric}": best}
    description = study_description(session, selection)
    session.tracker.close(parent, status, metrics=metrics, description=description)


def _wants_front(arguments: StudyArguments) -> bool:
    """Whether several objectives end with their Pareto front, and without a winner."""
    return bool(arguments.objectives) and not arguments.knee


def _finish(session: Session) -> Selection | None:
    """What follows the search: who wins, and the winner's score; of a front no one."""
    if _wants_front(session.arguments):
        _draw_front(session)
        numbers = [trial.number for trial in pareto_front(session.study)]
        session.study.set_user_attr("front", numbers)  # that it has ended, as a selection says
        return None
    with Ahead(session) as ahead:
        selection = run_finalists(session, ahead)
        check_winner(session, selection)  # a command that is refused leaves the study as it was
        session.study.set_user_attr("selection", selection.as_record())
        run_ablation(session, selection, ahead)
        score_winner(session, selection, ahead)
    return selection


def _draw_front(session: Session) -> None:
    """The first two objectives of all trials."""
    from dl4ia.tasks.pictures import draw_front  # slow to import

    names = session.study.metric_names or []
    completed = session.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    draw_front(
        [(trial.values[0], trial.values[1]) for trial in completed],
        [
            (trial.values[0], trial.values[1], describe(trial))
            for trial in pareto_front(session.study)
        ],
        (names[0], names[1]),
        session.front_picture,
    )
