"""What a flag's text may be: functions for argparse's `type=`.

Each raises ArgumentTypeError, which the parser tells in one line, for any other text.
"""

import argparse
import re
from collections.abc import Callable

ALL = ("all",)  # choices: each that there is
FURTHER_OBJECTIVES = ("weights", "seconds")  # besides the metric; lower is better
LONGEST_STUDY_NAME = 100  # characters
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def whole_number(lowest: int) -> Callable[[str], int]:
    """An int of at least `lowest`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < lowest:
            raise argparse.ArgumentTypeError(
                f"{text!r}: expected a whole number from {lowest} to 999999999"
            )
        return int(text)

    return parse


def study_name(text: str) -> str:
    """One that can also name a model and a folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", text) or len(text) > LONGEST_STUDY_NAME:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected up to {LONGEST_STUDY_NAME} letters, digits, - and _, a letter or "
            "digit first"
        )
    return text


def seconds(text: str) -> float:
    """Of `5400`, `90m`, `2h` and so on."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text)
    if not match or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds, or a time such as 90m or 2h")
    return float(match[1]) * UNITS[match[2]]


def share(text: str) -> float:
    """Of a GPU, or whole ones."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) or (float(text) > 1 and float(text) % 1):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a share of a GPU such as 0.25, or a whole number"
        )
    return float(text)


def objectives(text: str) -> tuple[str, ...]:
    """The metric and further ones, with commas between."""
    names = tuple(text.split(","))
    known = all(name in FURTHER_OBJECTIVES for name in names[1:])
    if len(names) < 2 or not known or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected the metric and then {' or '.join(FURTHER_OBJECTIVES)}, or both, "
            "with commas between"
        )
    return names


def choices(text: str) -> tuple[str, ...]:
    """Hyperparameters' names with commas between; ALL by its own name."""
    names = tuple(text.split(","))
    if not all(re.fullmatch("[a-z_]+", name) for name in names):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected hyperparameters such as dropout,schedule with commas between, or "
            "nothing, which is all of them"
        )
    return ALL if set(names) & set(ALL) else names


def values(text: str) -> tuple[str, str]:
    """A hyperparameter's name, and some of its values, which the study's space knows."""
    name, equals, some = text.partition("=")
    if not (re.fullmatch("[a-z_]+", name) and equals and some):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a hyperparameter and its values, such as base_width=8,16 or "
            "learning_rate=0.001..0.01"
        )
    return name, some


def pixels(text: str) -> float:
    """From 0 to below 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected pixels from 0 to below 1, such as 0.5"
        )
    return value
