"""The mean of a network's weights over its last steps."""

import copy
from typing import Any

import torch
from torch import nn


class WeightAverage:
    """An exponential mean of weights and buffers (Polyak and Juditsky 1992; Izmailov et al. 2018).

    It goes back about `horizon` steps, one at least; until there are so many it is the plain mean
    of all, so that no first weights stay in it. What is averaged must stay where it is in memory:
    optimizers and `load_state_dict` write into it, `Module.to` may not.
    """

    def __init__(self, model: nn.Module, horizon: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._horizon, self._steps = max(1.0, horizon), 0
        means, latest = self.model.state_dict(), model.state_dict()
        real = [name for name, mean in means.items() if mean.is_floating_point()]
        self._real = [means[name] for name in real], [latest[name] for name in real]
        whole = [name for name in means if name not in real]
        self._counts = [means[name] for name in whole], [latest[name] for name in whole]

    @torch.no_grad()
    def update(self) -> None:
        """The model has taken a step."""
        self._steps += 1
        means, latest = self._real
        torch._foreach_lerp_(means, latest, 1 / min(self._steps, self._horizon))
        counts, current = self._counts
        if counts:
            torch._foreach_copy_(counts, current)

    def state(self) -> dict[str, Any]:
        """What `set_state` takes, of tensors and numbers."""
        return {"model": self.model.state_dict(), "steps": self._steps}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where another had this `state`."""
        self.model.load_state_dict(state["model"])
        self._steps = state["steps"]
