"""Imports run one way (CONTRIBUTING.md): this reads them and holds it."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Each may import those before it in its own line's order, and nothing after it.
ORDER = [
    "errors",
    "text",
    "cgroups",
    "environment",
    "markdown",
    "statistics",
    "search_space",
    "command_line",
    "addresses",
    "workers",
    "data",
    "models",
    "metrics",
    "training",
    "tasks",
    "tracking",
    "search",
    "selection",
    "evaluation",
    "session",
    "report",
    "workflow",
    "replication",
    "console",
]


def imported(file: Path) -> set[str]:
    """Dotted names that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_at_once(file: Path) -> set[str]:
    """The modules that importing a file imports: not those inside functions and `if`."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    direct = {alias.name for node in body if isinstance(node, ast.Import) for alias in node.names}
    return direct | {str(node.module) for node in body if isinstance(node, ast.ImportFrom)}


def room(file: Path) -> str:
    return file.relative_to(ROOT / "dl4ia").parts[0].removesuffix(".py")


LIBRARY = sorted((ROOT / "dl4ia").rglob("*.py"))


@pytest.mark.parametrize("file", LIBRARY, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_run_one_way(file: Path) -> None:
    if room(file) == "__init__":
        assert {name.split(".")[0] for name in imported_at_once(file)} <= {"typing"}
        return
    assert room(file) in ORDER, "a new room: give it its place in the order"
    for name in imported(file):
        parts = name.split(".")
        if parts[0] == "dl4ia" and len(parts) > 1:
            assert ORDER.index(parts[1]) <= ORDER.index(room(file)), name
        assert parts[0] not in ("search_spaces", "studies"), name


def test_no_files_import_each_other() -> None:
    """Not within a room either, whichever way around."""
    names = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for file in LIBRARY
    }
    graph = {name: imported(file) & names.keys() for name, file in names.items()}
    graph["dl4ia"] = set()  # what it offers, it imports when that is asked for
    list(graphlib.TopologicalSorter(graph).static_order())


def importers(package: str, folder: str = "dl4ia") -> set[str]:
    return {
        str(file.relative_to(ROOT / folder))
        for file in sorted((ROOT / folder).rglob("*.py"))
        if any(name.split(".")[0] == package for name in imported(file))
    }


def test_one_room_imports_mlflow() -> None:
    assert {Path(name).parts[0] for name in importers("mlflow")} == {"tracking"}


def test_one_file_imports_plotly() -> None:
    assert importers("plotly") == {"report/figures.py"}


def test_one_file_imports_ray() -> None:
    assert importers("ray") == {"workers/cluster.py"}


def test_one_file_imports_optuna_dashboard() -> None:
    assert importers("optuna_dashboard") == {"report/dashboard.py"}


def test_training_and_models_know_nothing_of_optuna() -> None:
    rooms = {Path(name).parts[0] for name in importers("optuna")}
    assert rooms == {
        "search",
        "selection",
        "evaluation",
        "session.py",
        "report",
        "workflow",
        "console",
    }


def test_search_spaces_import_the_search_space_alone() -> None:
    for file in sorted((ROOT / "search_spaces").glob("*.py")):
        names = {name for name in imported(file) if name.startswith(("dl4ia", "torch", "optuna"))}
        assert all(name.startswith("dl4ia.search_space") for name in names), file


def test_only_the_evaluation_reads_a_test_set() -> None:
    """No other file calls a method named `test`."""
    calls = set()
    for file in [*LIBRARY, *(ROOT / "studies").glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute) and called.attr == "test":
                calls.add(file.name)
    assert calls == {"test_lock.py"}


def test_the_command_line_imports_nothing_heavy() -> None:
    """`--help` answers at once."""
    light = {
        "argparse",
        "atexit",
        "gc",
        "io",
        "re",
        "signal",
        "sys",
        "types",
        "ctypes",
        "functools",
        "importlib",
        "os",
        "platform",
        "subprocess",
        "threading",
        "time",
    }
    light |= {"collections", "dataclasses", "pathlib", "typing", "dl4ia", "psutil"}
    files = [*(ROOT / "dl4ia" / "command_line").glob("*.py")]
    for file in [*files, ROOT / "dl4ia" / "environment.py", ROOT / "dl4ia" / "errors.py"]:
        assert {name.split(".")[0] for name in imported(file)} <= light, file
