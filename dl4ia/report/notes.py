"""What the notes say that the Optuna dashboard shows beside a study and beside each of its trials.

Markdown, from the study alone. Whatever comes from the user, a name or a failure's message, is
escaped: it can neither break the note nor become a part of the page.
"""

import optuna
from optuna.trial import FrozenTrial, TrialState

from dl4ia.environment import describe_code
from dl4ia.markdown import code, plain, table
from dl4ia.report import findings
from dl4ia.search.pareto import pareto_front
from dl4ia.search.trials import first_value, hidden, history_of
from dl4ia.search_space import space_table
from dl4ia.selection.finalists import Selection
from dl4ia.selection.ranking import ranked_trials
from dl4ia.session import Session
from dl4ia.text import plural


def study_note(session: Session, selection: Selection | None, run: str) -> str:
    """As much as is known; selection: who wins, if that is settled; run: the study's in MLflow."""
    title = f"# {plain(session.name)}"
    link = f"MLflow run: {_run_link(session.tracking_uri, run)}"
    known = study_description(session, selection)
    return "\n\n".join([title, link, known, *_searched(session)])


def study_description(session: Session, selection: Selection | None) -> str:
    """The note's results and data, which MLflow's page of the study has as well."""
    parts = _leaderboard(session)
    if selection is not None:
        parts = [*_winner(session, selection), *parts, *_finalists(session.study, selection)]
    return "\n\n".join([*parts, *_data(session)])


def trial_note(trial: FrozenTrial, metric: str, tracking_uri: str, run: str) -> str:
    """How a finished trial ended and what it is joined to; run: its own in MLflow."""
    known = trial.user_attrs
    name = f"**{plain(findings.describe(trial))}**"
    if "report_model" in known:
        name += ", one of the **report's models**"
    rows = [["seed", str(known.get("seed", "–"))]]
    if "weights" in known:
        rows.append(["weights", f"{known['weights']:,}"])
    if "retry_of" in known:
        rows.append(["interrupted before as", f"trial {known['retry_of']}"])
    environment = hidden(trial, "environment")
    if "commit" in environment:
        rows.append(["commit", describe_code(environment, 10)])
    parts = [f"{name}. {ending(trial, metric)}"]
    if "no_pictures" in known:
        parts.append(f"Its pictures could not be written: {plain(known['no_pictures'])}")
    parts += [table([["", ""], *rows]), f"MLflow run: {_run_link(tracking_uri, run)}"]
    return "\n\n".join(parts)


def ending(trial: FrozenTrial, metric: str) -> str:
    """In what state a finished trial ended, after how long, and why."""
    epochs = history_of(trial)
    after = f"after {plural(len(epochs.get('seconds', ())), 'epoch')}"
    if trial.state == TrialState.COMPLETE:
        return f"Completed: validation {metric} {first_value(trial):.4f} {after}."
    if trial.state == TrialState.PRUNED:
        return (
            f"Pruned {after}, at validation {metric} {epochs[f'val_{metric}'][-1]:.4f}: successive "
            "halving lets only the best of the trials that come as far go on."
        )
    if "failure" in trial.user_attrs:
        return f"Failed {after}: {plain(trial.user_attrs['failure'])}"
    return "Interrupted: its point is trained again, in a trial of its own."


def _run_link(tracking_uri: str, run: str) -> str:
    """A link where a server has the runs; else their database has no address."""
    if tracking_uri.startswith(("http://", "https://")) and "@" not in tracking_uri:
        return f"[{run}](<{tracking_uri.rstrip('/')}/#/runs/{run}>)"
    return code(run)


def _winner(session: Session, selection: Selection) -> list[str]:
    """Who it is, and its scores, beside the report's best."""
    study, metric = session.study, session.task.metric
    winner, trials = findings.scored_winner(study, selection), study.get_trials(deepcopy=False)
    trial = trials[selection.winner]
    who = (
        f"**Winner: trial {trial.number}**, {plain(findings.describe(trial))}, "
        f"{trial.user_attrs['weights']:,} weights"
    )
    page = f"Report page: {code(str(session.page))}"
    if winner is None:
        return [f"{who}. It has no test score yet.", page]
    scores = winner["metrics"]
    rows = [["", metric, "95 % interval"]]
    if selection.finalists:
        found = selection.estimate(selection.of(selection.winner))
        interval = findings.between(found)
        where = f"validation, {plural(found.count, 'repeat')}"
        rows.append([where, f"{found.mean:.4f}", interval])
    test = findings.spread(scores, f"test_{metric}")
    over = f"test, {plural(winner['images'], 'image')}"
    rows.append([over, test, findings.interval(scores, f"test_{metric}")])
    if winner["compared_with"] is not None:
        other = findings.describe(trials[winner["compared_with"]])
        difference = f"{scores[f'difference_{metric}']:+.4f}"
        rows.append(
            [
                f"test, minus {other}'s",
                difference,
                findings.interval(scores, f"difference_{metric}"),
            ]
        )
    openings = findings.openings(study.user_attrs["test_openings"])
    return [
        f"{who}; retrained on all training images from {plural(winner['seeds'], 'seed')}. The test "
        f"set was opened {openings}.",
        table(rows),
        page,
    ]


def _leaderboard(session: Session) -> list[str]:
    study, models = session.study, session.searched.REPORT_MODELS
    if not ranked_trials(study):
        return []
    parts = ["## Leaderboard", table(findings.leaderboard(study, session.task.metric, models))]
    parts.append(plain(session.searched.REPORT_NOTE))
    if len(study.directions) > 1:
        parts += ["## Pareto front", table(findings.front(study, pareto_front(study)))]
    return parts


def _finalists(study: optuna.Study, selection: Selection) -> list[str]:
    if not selection.finalists:
        return []
    said = (
        f"The best points, trained again on {findings.over_repeats(selection)}. The *measured "
        "optimism*: "
        f"{plain(findings.optimism(study, selection))}."
    )
    return ["## Finalists", said, table(findings.finalists(study, selection))]


def _data(session: Session) -> list[str]:
    identity, count = session.identity, len(session.dataset)
    value = (
        f"validation {identity.metric} after {plural(identity.epochs, 'epoch')}, a mean "
        f"over {session.validation}; split by {identity.split_by}, seed {identity.seed}"
    )
    rows = [
        ["data", session.source.description],
        ["training images", f"{count:,}, fingerprint {identity.data_fingerprint}"],
        ["a trial's value", value],
        *([["searched within", identity.within]] if identity.within else []),
        *([name.replace("_", " "), str(value)] for name, value in identity.preparation.items()),
    ]
    return ["## Data", table([["", ""], *rows])]


def _searched(session: Session) -> list[str]:
    return ["## What is searched", space_table(session.searched.SPACE).strip()]
