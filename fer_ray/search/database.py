"""The database that a study lies in."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from fer_ray.errors import FerRayError, UsageError

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
    # A dashboard that reads much locks SQLite's file for as long; Python's 5 s of patience would then end the search
    # (optuna-dashboard issue 545).
    patience = {"connect_args": {"timeout": SQLITE_PATIENCE_S}} if url.get_backend_name() == "sqlite" else None
    try:
        _require_ours(storage, patience or {})
        return action(RDBStorage(storage, engine_kwargs=patience))
    except KeyError:
        raise UsageError(f"{storage}: has no study of this run. Name the --storage of its first call.") from None
    except optuna.exceptions.DuplicatedStudyError as error:
        raise UsageError(f"{storage}: {error}") from error
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
        raise UsageError(
            f"{storage}: can't be opened as a database of studies: {_reason(error)}. Restore it from a copy, or"
            " search anew with another --storage or --output."
        ) from error


def require_there(storage: str) -> None:
    """Check that the file of an SQLite database is there, which opening it would make.

    Raises:
        UsageError: it isn't.
    """
    url = make_url(storage)
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).is_file():
        raise UsageError(f"{url.database}: no such database. Name the --storage of the search's first call.")


@contextmanager
def translate_database_errors(storage: str) -> Iterator[None]:
    """Say in words that a database no longer answers, wherever Ray Tune has wrapped its error.

    Args:
        storage: its URL.

    Raises:
        FerRayError: it doesn't, or refuses what is written.
    """
    try:
        yield
    except FerRayError:
        raise
    except Exception as error:
        links, link = list[BaseException](), cast(BaseException | None, error)
        while link is not None:
            links.append(link)
            link = link.__cause__ or link.__context__
        if not (told := [one for one in links if isinstance(one, SQLAlchemyError)]):
            raise
        raise FerRayError(
            f"{storage}: the study's database no longer does what it is asked: {_reason(told[-1])}. What it"
            " had written is kept. Once that is mended, go on with --resume."
        ) from error


def _reason(error: Exception) -> str:
    """What a database says, without what SQLAlchemy adds."""
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0].rstrip(".")


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
        named = ", ".join(sorted(tables)[:3])
        raise UsageError(f"{storage}: holds tables of another program ({named}). Name another --storage.")
