import os
import subprocess
import sys

from dl4ia.environment import describe_environment, git_state, is_dead, this_process


def test_the_commit_is_that_of_the_checkout() -> None:
    state = git_state()
    assert state["commit"] == "unknown" or len(state["commit"]) == 40
    assert state["dirty"] in ("True", "False", "unknown")


def test_the_environment_is_text() -> None:
    environment = describe_environment()
    assert {"torch", "optuna", "mlflow", "python", "system", "commit"} <= environment.keys()
    assert all(isinstance(value, str) for value in environment.values())


def test_who_is_dead() -> None:
    mine = this_process()
    assert mine["pid"] == os.getpid() and not is_dead(mine)
    assert is_dead(mine | {"started": float(mine["started"]) - 100})  # the number was given again
    assert not is_dead(mine | {"host": "elsewhere", "pid": 1, "started": 0.0})
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    assert is_dead(mine | {"pid": process.pid})


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
