"""The Optuna study: its trials, its storage, and how they are claimed, run and told."""
