"""The database that a study lies in."""

from collections.abc import Callable

import optuna
from optuna.storages import RDBStorage
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
        return action(RDBStorage(storage, engine_kwargs=patience))
    except KeyError:
        raise UsageError(f"{shown}: has no study of this run. Name the --storage of its first call.") from None
    except optuna.exceptions.DuplicatedStudyError as error:
        raise UsageError(f"{shown}: {error}") from error
    except SQLAlchemyError as error:
        raise UsageError(f"{shown}: can't be opened as a database: {error}. Name another --storage.") from error
