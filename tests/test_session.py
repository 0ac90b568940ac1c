import pytest

from dl4ia.errors import InputError, TrialFailure
from dl4ia.session import open_device
from dl4ia.winner import retraining_of


def test_a_failed_retraining_is_told_in_one_line() -> None:
    with (
        pytest.raises(InputError, match="retraining trial 3 .*epoch 2: out of memory") as told,
        retraining_of(3),
    ):
        raise TrialFailure("epoch 2: out of memory")
    assert "\n" not in str(told.value)


def test_a_gpu_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for name in ("auto", "cpu"):
        device, environment = open_device(name)
        assert device.type == environment["device"] == "cpu"
        assert environment["precision"] in ("float32", "bfloat16")
    with pytest.raises(InputError, match="--device cuda"):
        open_device("cuda")
