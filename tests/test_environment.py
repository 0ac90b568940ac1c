import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dl4ia.environment import (
    M_MMAP_THRESHOLD,
    M_TRIM_THRESHOLD,
    describe_environment,
    git_state,
    is_alive,
    is_dead,
    keep_freed_memory,
    this_process,
)


def test_the_commit_is_that_of_the_checkout() -> None:
    command = ["git", "rev-parse", "HEAD"]
    told = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    if told.returncode:
        pytest.skip("no checkout of git's")
    assert git_state()["commit"] == told.stdout.strip()


def test_a_package_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dl4ia.environment.PACKAGES", ("torch", "no such package"))
    found = describe_environment()
    assert found["torch"][0].isdigit() and found["no such package"] == "not installed"


def test_what_makes_a_checkout_dirty(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.org")
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    code, package = tmp_path / "code.py", tmp_path / "package"
    assert git_state(tmp_path)["dirty"] == "unknown"
    git("init")
    code.write_text("a = 1\n")
    package.mkdir()
    (package / "__init__.py").touch()
    git("add", ".")
    git("commit", "-m", "first")
    assert git_state(tmp_path)["dirty"] == "False"
    (tmp_path / "run.log").write_text("a user's own\n")
    assert git_state(tmp_path)["dirty"] == "False"
    assert git_state(package)["dirty"] == "False"
    (tmp_path / "new.py").write_text("a = 2\n")
    assert git_state(tmp_path)["dirty"] == git_state(package)["dirty"] == "True"
    (tmp_path / "new.py").unlink()
    code.write_text("a = 2\n")
    assert git_state(package)["dirty"] == "True"
    installed = tmp_path / ".venv" / "package"  # in a virtual environment that lies in a checkout
    installed.mkdir(parents=True)
    (tmp_path / ".gitignore").write_text(".venv\n")
    (installed / "code.py").write_text("a = 3\n")
    assert git_state(installed) == {"commit": "unknown", "dirty": "unknown"}


def test_the_environment_is_text() -> None:
    environment = describe_environment()
    assert {"torch", "optuna", "mlflow", "python", "system", "commit"} <= environment.keys()
    assert all(isinstance(value, str) for value in environment.values())


def test_who_is_dead() -> None:
    mine = this_process()
    assert mine["pid"] == os.getpid() and not is_dead(mine)
    assert is_dead(mine | {"began": float(mine["began"]) - 100})  # the number was given again
    # Of a machine, or a container, that may have this one's name nothing is known here.
    for name in ("host", "boot", "namespace"):
        other = mine | {name: "another", "pid": 1, "began": 0.0}
        assert not is_dead(other) and not is_alive(other)
    assert is_alive(mine)
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    assert is_dead(mine | {"pid": process.pid})


def test_nobody_is_dead_after_the_clock_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes begin so many ticks after the machine, whose own start then seems another."""
    mine = this_process()
    start = psutil.boot_time()
    for module in ("psutil", "psutil._pslinux"):
        monkeypatch.setattr(f"{module}.boot_time", lambda: start + 100)
    assert psutil.Process().create_time() - start > float(mine["began"]) + 99
    assert not is_dead(mine)


def test_tuning_happens_before_torch_and_leaves_the_users_setting() -> None:
    code = (
        "import os, sys\n"
        "from dl4ia.environment import tune_process\n"
        "assert 'torch' not in sys.modules\n"
        "tune_process(); print(os.environ['GOMP_SPINCOUNT'])"
    )
    clean = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
    for environment, expected in ((clean, "1000"), (clean | {"GOMP_SPINCOUNT": "7"}, "7")):
        answer = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        assert answer.stdout.strip() == expected, answer.stderr


@pytest.mark.parametrize(
    ("largest", "expected"),
    [
        (1 << 40, {M_MMAP_THRESHOLD: 1 << 30, M_TRIM_THRESHOLD: (1 << 31) - 1}),
        (32 << 20, {M_MMAP_THRESHOLD: 32 << 20, M_TRIM_THRESHOLD: (1 << 31) - 1}),
        (0, {}),  # the trimming alone would have every activation mapped anew
    ],
    ids=["this glibc", "an older one", "none"],
)
def test_an_older_c_library_refuses_large_thresholds(
    largest: int, expected: dict[int, int]
) -> None:
    set_to: dict[int, int] = {}

    def mallopt(option: int, value: int) -> int:
        if option == M_MMAP_THRESHOLD and value > largest:
            return 0
        set_to[option] = value
        return 1

    keep_freed_memory(mallopt)
    assert set_to == expected
