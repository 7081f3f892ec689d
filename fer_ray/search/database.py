"""The database of a study."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from fer_ray.errors import FerRayError, UsageError

T = TypeVar("T")
SQLITE_PATIENCE_S = 60  # how long a write waits for other users of the study's file


def open_database(storage: str, action: Callable[[RDBStorage], T], create: bool = False) -> T:
    """Open the database at a URL and return the result of ``action``, which loads, creates or looks for a study.

    With ``create`` the file of an SQLite database may be missing. ``UsageError`` if the database can't be opened, has
    no such study, or already has one of this name.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = make_url(storage)
    is_sqlite = url.get_backend_name() == "sqlite"
    if is_sqlite and url.database and not create and not Path(url.database).is_file():
        raise UsageError(f"{url.database}: no such database. Name the --storage of the search's first call.")
    # A dashboard that reads a lot locks SQLite's file meanwhile; Python's timeout of 5 s would then end the search
    # (optuna-dashboard issue 545).
    patience = {"connect_args": {"timeout": SQLITE_PATIENCE_S}} if is_sqlite else None
    try:
        _require_ours(storage, patience or {})
        return action(RDBStorage(storage, engine_kwargs=patience))
    except KeyError:
        raise UsageError(f"{storage}: has no study of this search. Name the --storage of its first call.") from None
    except optuna.exceptions.DuplicatedStudyError as error:
        raise UsageError(f"{storage}: {error}") from error
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
        raise UsageError(
            f"{storage}: can't be opened as a database of studies: {_reason(error)}. Restore it from a copy, or"
            " start a new search with another --storage or --output."
        ) from error


@contextmanager
def translate_database_errors(storage: str) -> Iterator[None]:
    """Raise errors of a database, also those that Ray Tune has wrapped, as a ``FerRayError``."""
    try:
        yield
    except FerRayError:
        raise
    except Exception as error:
        links, link = list[BaseException](), cast(BaseException | None, error)
        while link is not None:
            links.append(link)
            link = link.__cause__ or link.__context__
        if not (errors := [one for one in links if isinstance(one, SQLAlchemyError)]):
            raise
        raise FerRayError(
            f"{storage}: the study's database no longer answers: {_reason(errors[-1])}. Everything written so far is"
            " kept. Repair the database, then resume with --resume."
        ) from error


def _reason(error: Exception) -> str:
    """Return the message of a database without SQLAlchemy's additions."""
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0].rstrip(".")


def _require_ours(storage: str, options: dict[str, Any]) -> None:
    """Raise a ``UsageError`` if a database has tables of another program, before Optuna creates its own there."""
    engine = create_engine(storage, **options)
    try:
        tables = set(inspect(engine).get_table_names())
    finally:
        engine.dispose()
    if tables and "version_info" not in tables:
        named = ", ".join(sorted(tables)[:3])
        raise UsageError(f"{storage}: holds tables of another program ({named}). Name another --storage.")
