"""The database that a study lies in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from fer_ray.errors import UsageError

SQLITE_PATIENCE_S = 60
"""How long a write waits for others who use the study's file."""


def open_study(storage: str, action: Callable[[RDBStorage], optuna.Study]) -> optuna.Study:
    """Return what ``action`` opens or makes in a database.

    Args:
        storage: its URL.
        action: is given the database.

    Raises:
        UsageError: it can't be opened, has no such study, or one already.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = make_url(storage)
    shown = url.render_as_string(hide_password=True)
    # A dashboard that reads much locks SQLite's file for as long; Python's 5 s of patience would then end the search
    # (optuna-dashboard issue 545).
    patience = {"connect_args": {"timeout": SQLITE_PATIENCE_S}} if url.get_backend_name() == "sqlite" else None
    try:
        _require_ours(storage, patience or {})
        return action(RDBStorage(storage, engine_kwargs=patience))
    except KeyError:
        raise UsageError(f"{shown}: has no study of this run. Name the --storage of its first call.") from None
    except optuna.exceptions.DuplicatedStudyError as error:
        raise UsageError(f"{shown}: {error}") from error
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0].rstrip(".")
        raise UsageError(
            f"{shown}: can't be opened as a database of studies: {reason}. Restore it from a copy, or search anew with"
            " another --storage or --output."
        ) from error


def require_there(storage: str) -> None:
    """Check that the file of an SQLite database is there, which opening it would make.

    Raises:
        UsageError: it isn't.
    """
    url = make_url(storage)
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).is_file():
        raise UsageError(f"{url.database}: no such database. Name the --storage of the search's first call.")


def _require_ours(storage: str, options: dict[str, Any]) -> None:
    """Check that a database is empty or Optuna's, before Optuna makes its tables there.

    Args:
        storage: its URL.
        options: of its engine.

    Raises:
        UsageError: it holds tables of something else.
    """
    engine = create_engine(storage, **options)
    try:
        tables = set(inspect(engine).get_table_names())
    finally:
        engine.dispose()
    if tables and "version_info" not in tables:
        shown = make_url(storage).render_as_string(hide_password=True)
        named = ", ".join(sorted(tables)[:3])
        raise UsageError(f"{shown}: holds tables of another program ({named}). Name another --storage.")
