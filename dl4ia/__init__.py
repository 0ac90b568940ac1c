"""dl4ia: hyperparameter-optimisation studies for image analysis.

`best_runs` is loaded when it is first asked for: importing the package costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dl4ia.console.best import best_runs as best_runs

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "best_runs":
        from dl4ia.console.best import best_runs

        return best_runs
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
