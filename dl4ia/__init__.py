"""dl4ia: hyperparameter-optimisation studies for image analysis."""

__version__ = "0.1.0"
