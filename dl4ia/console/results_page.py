"""What `dl4ia results` writes in words: a study's README.md, and a table of all studies."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from dl4ia.environment import describe_code
from dl4ia.errors import InputError, first_line
from dl4ia.markdown import plain, table
from dl4ia.report import findings
from dl4ia.selection.ablation import effects_of
from dl4ia.selection.finalists import Selection
from dl4ia.text import duration, plural, short


def summary_table(folder: Path) -> str:
    """All studies in `folder`, a line each, as a Markdown table; from their study.json alone."""
    files = sorted(folder.glob("*/study.json"))
    records = [record for record in map(read_record, files) if "scores" in record]
    rows = [("study", "winner", "metric", "test, single model", "95 % interval",
             "ensemble and views", "the report's best, retrained", "difference")]  # fmt: skip
    for record in records:
        scores, metric = record["scores"], record["metric"]
        pooled = f"{metric}_pooled"
        for number, each in enumerate([metric, *[pooled] * (f"test_{pooled}" in scores)]):
            first = number == 0
            rows.append(
                (
                    _study(record) if first else "",
                    f"{record['winner_model']}, {record['weights']:,} weights" if first else "",
                    each.replace("_", ", "),
                    findings.spread(scores, f"test_{each}"),
                    findings.interval(scores, f"test_{each}"),
                    _of_no_single_model(scores, record["seeds"], each),
                    _report(scores, each),
                    _difference(scores, each),
                )
            )
    return table(rows)


def _study(record: Mapping[str, Any]) -> str:
    """Its name, and of which part of the space it is."""
    within = record.get("identity", {}).get("within")
    return f"{record['study']} (within {within})" if within else str(record["study"])


def _within(record: Mapping[str, Any]) -> list[str]:
    within = record["identity"].get("within")
    if not within:
        return []
    return [f"Searched was a part of the space alone: {plain(within)}.", ""]


def results_page(
    study: optuna.Study,
    chosen: FrozenTrial,
    winner: Mapping[str, Any] | None,
    selection: Selection | None,
    record: Mapping[str, Any],
) -> str:
    """The README.md of one study; record: its study.json."""
    metric, machine = record["metric"], record["machine"]
    models = [trial.user_attrs.get("report_model") for trial in study.get_trials(deepcopy=False)]
    lines = [
        f"# {plain(record['study'])}",
        "",
        f"Winner: trial {record['winner']}, {plain(record['winner_model'])}, "
        f"{record['weights']:,} weights, chosen by validation alone. Written by `dl4ia results`.",
        "",
        *_within(record),
        "![The search, the finalists, and what came of them](study.png)",
        "",
        *_since(record),
        f"    {record['command'] or 'the command is not known: an earlier version ran it'}",
        *(f"    {command}" for command in [record["last_command"]] if command),
        "",
        f"Data: {plain(record['data'])}. From {record['start']} to {record['end']}; the trials' "
        f"training took {duration(record['trial_seconds'])}, added up over all processes. "
        f"{_joined(machine, 'processor')}, cores a process: {_joined(machine, 'cores')}, device "
        f"{_joined(machine, 'device')}, {_joined(machine, 'precision')} training; commit "
        f"{_joined(machine, 'commit')}{_changes(machine)}, torch {_joined(machine, 'torch')}, "
        f"optuna {_joined(machine, 'optuna')}.",
        "",
        *(_test(winner, record) if winner else [f"{_opened(record)} There is no test score."]),
    ]
    if selection is not None:
        lines += [
            "",
            "## Finalists",
            "",
            f"Over {findings.over_repeats(selection)}. Measured optimism: "
            f"{plain(findings.optimism(study, selection))}. Each repeat: "
            "[finalists.csv](finalists.csv). "
            f"{findings.several_ways(study, range(selection.repeats))}".rstrip(),
            "",
            table(findings.finalists(study, selection)),
        ]
    ablation = findings.ablation_of(study, chosen.number)
    nothing = findings.nothing_turned_back(ablation) if ablation else ""
    if nothing:
        lines += ["", "## What each choice buys", "", plain(nothing)]
    elif ablation is not None:
        lines += [
            "",
            "## What each choice buys",
            "",
            f"The winner's validation {metric} minus that with one choice turned back to "
            f"{ablation['baseline']}'s and all others as tuned for the winner, over "
            f"{findings.paired_repeats(ablation)}. "
            f"{findings.BY_CHANCE} Each repeat: [ablation.csv](ablation.csv). "
            f"{findings.several_ways_of(study, ablation)}".rstrip(),
            "",
            table(findings.effects(ablation)),
            "",
            *(
                plain(findings.effect_line(each, ablation)) + "\n"
                for each in effects_of(ablation)
                if each.failure
            ),
        ]
    lines += [
        "",
        "## Search",
        "",
        f"{findings.states(study)}. All trials: [trials.csv](trials.csv).",
        "",
        table(findings.leaderboard(study, metric, [name for name in models if name])),
        "",
        "## The winner's point",
        "",
        table([("hyperparameter", "value"), *((k, short(v)) for k, v in chosen.params.items())]),
        "",
    ]
    return "\n".join(lines)


def _opened(record: Mapping[str, Any]) -> str:
    openings = [
        f"{each['when']} for trial {each['trial']} at commit {describe_code(each, 10)}"
        for each in record["test_openings"]
    ]
    if not openings:
        return "The test set stayed shut."
    often = findings.openings(record["test_openings"])
    return f"The test set was opened {often}: {'; '.join(openings)}."


def _test(winner: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    whose = f" of {plural(winner['patients'], 'patient')}" if winner["patients"] else ""
    return [
        "## Test",
        "",
        f"Retrained on all training images over {plural(winner['epochs'], 'epoch')} from "
        f"{plural(winner['seeds'], 'seed')}, scored on {plural(winner['images'], 'image')}{whose}: "
        f"{findings.spread_over(winner)}, {findings.interval_over(winner)}. Retrained at commit "
        f"{plain(', '.join(record['retraining_commits']))}. {_opened(record)} "
        + "P(better) is one minus the p of a one-sided t-test. " * bool(record["report_model"])
        + "All metrics: [test.csv](test.csv).",
        "",
        table(_test_rows(winner, record["metric"], record["report_model"])),
    ]


def _since(record: Mapping[str, Any]) -> list[str]:
    """That the winner is of an earlier state of the study, where it is."""
    if record["preferred_since"] is None and record["completed_since"]:
        return [
            f"**The study has gone on since:** {plural(record['completed_since'], 'trial')} "
            "completed after this winner was chosen; its command, given again, says who wins by "
            "now.",
            "",
        ]
    if record["preferred_since"] is None:
        return []
    return [
        f"**The study has gone on since:** by now trial {record['preferred_since']} would win. The "
        "test set was opened for this one, whose score stands; the search below is as of now.",
        "",
    ]


def _joined(machine: Mapping[str, Sequence[str]], key: str) -> str:
    return plain(", ".join(machine[key])) or "unknown"


def _changes(machine: Mapping[str, Sequence[str]]) -> str:
    return " (with uncommitted changes)" if "True" in machine["dirty"] else ""


def _test_rows(
    winner: Mapping[str, Any], metric: str, report_model: str | None
) -> list[tuple[str, ...]]:
    scores = winner["metrics"]
    labels = findings.ensemble_labels(winner["seeds"])
    ends = [end for end in labels if f"test_{metric}_{end}" in scores]
    header = ["metric", "test", "95 % interval", *(labels[end] for end in ends)]
    if report_model is not None:
        header += [f"{report_model}, retrained", "difference", "P(better)"]
    rows = [tuple(header)]
    for name in findings.test_metrics(scores):
        found = f"test_{name}"
        row = [name, findings.spread(scores, found), findings.interval(scores, found)]
        for end in ends:
            key = f"test_{name}_{end}"
            row.append(f"{scores[key]:.4f}" if key in scores else "–")
        if report_model is not None:
            row += [_report(scores, name), _difference(scores, name)]
            row.append(findings.p_better(scores, name))
        rows.append(tuple(row))
    return rows


def _report(scores: Mapping[str, float], name: str) -> str:
    """The report's best model, retrained; not of every metric."""
    known = f"report_{name}"
    return findings.spread(scores, known) if known in scores else "–"


def _difference(scores: Mapping[str, float], name: str) -> str:
    key = f"difference_{name}"
    return f"{scores[key]:+.4f} [{findings.interval(scores, key, '+')}]" if key in scores else "–"


def _of_no_single_model(scores: Mapping[str, float], seeds: int, name: str) -> str:
    """Of the ensemble, averaged over views where the task has them."""
    ends = [end for end in findings.ensemble_labels(seeds) if f"test_{name}_{end}" in scores]
    return f"{scores[f'test_{name}_{ends[-1]}']:.4f}" if ends else "–"


def read_record(file: Path) -> dict[str, Any]:
    """A study.json; raises InputError where it is none."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        # Of a study without a test score none are asked for.
        if "scores" in record and f"test_{record['metric']}" not in record["scores"]:
            raise ValueError(f"no test score of {record['metric']}")
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{file}: is not of `dl4ia results` ({first_line(error)}); write it anew, or delete it"
        ) from error
    return dict(record)
