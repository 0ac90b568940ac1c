"""Networks. Knows nothing of data, training, Optuna or MLflow."""
