"""MLflow: what it is told of a study, and asked of it again. Nothing else imports it.

The Optuna study is the truth; MLflow is written from it, one batch a trial, and can be rebuilt from
it. Importing MLflow costs 3 s.
"""

import logging
import os

# Read while MLflow is imported: it sends no usage reports home, and prints no links.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# A server that is away is told of at once, not after two minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")  # seconds

# A new database is no news, and neither are its migrations.
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
# It logs a failing database's whole traceback and then raises; the caller says it in one line.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
