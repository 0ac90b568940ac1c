"""MLflow's runs, page by page."""

from collections.abc import Iterator

from mlflow import MlflowClient
from mlflow.entities import Run

RUNS_PER_PAGE = 1000


def search_runs(
    client: MlflowClient, experiment: str, query: str, order: str, page_size: int | None = None
) -> Iterator[Run]:
    """All runs of an experiment that fulfil `query`."""
    page: str | None = ""
    while page is not None:
        runs = client.search_runs(
            [experiment],
            query,
            max_results=page_size or RUNS_PER_PAGE,
            order_by=[order],
            page_token=page or None,
        )
        yield from runs
        page = runs.token or None


def of_study(study: str) -> str:
    """The condition for a study's runs."""
    quote = "'" if '"' in study else '"'
    return f"tags.`dl4ia.study` = {quote}{study}{quote}"
