"""What a report page says of where a study's figures come from, and how to make them again."""

from typing import Any

import optuna

from dl4ia.addresses import this_command
from dl4ia.environment import describe_code
from dl4ia.report import findings, html
from dl4ia.search.trials import hidden
from dl4ia.selection.repeats import repeat_environments
from dl4ia.text import plural


def provenance(study: optuna.Study, winner: dict[str, Any] | None) -> list[str]:
    """The page's end: identity, environments, openings of the test set, and the command."""
    identity = study.user_attrs["identity"]
    environments = [hidden(trial, "environment") for trial in study.get_trials(deepcopy=False)]
    environments += repeat_environments(study)

    def known(key: str) -> str:
        return ", ".join(sorted({str(each[key]) for each in environments if key in each})) or "–"

    rows = [["what", "value"], *([name, str(value)] for name, value in identity.items())]
    names = ("commit", "dirty", "device", "precision", "system", "processor", "cores",
             "python", "torch", "torchvision", "optuna", "mlflow", "numpy")  # fmt: skip
    rows += [[f"trials' and repeats' {name}", known(name)] for name in names]
    if winner is not None:
        rows += [
            ["retrainings' commits", ", ".join(winner["commits"])],
            ["test images' fingerprint", winner["test_fingerprint"]],
        ]
    metric = identity["metric"]
    former = {
        each["opening"]: f", test {metric} {findings.spread(each['metrics'], f'test_{metric}')}"
        for each in study.user_attrs.get("former_winners", ())
    }
    for number, opening in enumerate(study.user_attrs.get("test_openings", ()), start=1):
        rows.append(
            [
                f"test set opened, {number}",
                f"{opening['when']} for trial {opening['trial']}, "
                f"{plural(opening['seeds'], 'seed')}, {plural(opening['epochs'], 'epoch')}, "
                f"commit {describe_code(opening, 10)}"
                f"{former.get(number, '')}",
            ]
        )
    return [
        html.heading("Where this comes from"),
        html.table(rows, "provenance"),
        html.heading("To make it again"),
        html.code(this_command()),
    ]
