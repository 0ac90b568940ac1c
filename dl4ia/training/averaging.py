"""The mean of a network's weights over its last steps."""

import copy
from typing import Any

import torch
from torch import nn


class WeightAverage:
    """An exponential mean of weights and buffers (Polyak and Juditsky 1992; Izmailov et al. 2018).

    It goes back about `horizon` steps; until there are so many it is the plain mean of all, so that
    no first weights stay in it.
    """

    def __init__(self, model: nn.Module, horizon: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._horizon, self._steps = horizon, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """`model` has taken a step."""
        self._steps += 1
        share = 1 / min(self._steps, self._horizon)
        latest = model.state_dict()
        for name, mean in self.model.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(latest[name], share)
            else:  # a count
                mean.copy_(latest[name])

    def state(self) -> dict[str, Any]:
        """What `set_state` takes, of tensors and numbers."""
        return {"model": self.model.state_dict(), "steps": self._steps}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where another had this `state`."""
        self.model.load_state_dict(state["model"])
        self._steps = state["steps"]
