"""MLflow's database after the folder that it lies in was moved, or copied.

MLflow keeps whole paths of what it has beside the database, and has no call to change them: it
would go on writing into the old place.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def follow_move(database: Path, known: str, artifacts: Path) -> None:
    """Have everything that `database` has under `known` be under `artifacts` instead.

    And what it has beside them in the same folder. known: where its artifacts were. Does nothing
    where they are not in the database's own folder, or still are where they were inside it: several
    folders write into one database.
    """
    here, inside = artifacts.resolve(), database.resolve().parent
    if known == str(here) or not here.is_relative_to(inside):
        return
    if Path(known).is_relative_to(inside) and Path(known).exists():
        return
    end = f"/{here.relative_to(inside)}"
    if not known.endswith(end):
        return
    old, new = known.removesuffix(end), str(inside)
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        for table, column in PLACES:
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                f"WHERE substr({column}, 1, ?) = ?",
                (new, len(old) + 1, len(old) + 1, f"{old}/"),
            )
