"""The database that a study lies in."""

from collections.abc import Callable

import optuna
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from fer_ray.errors import UsageError


def open_study(storage: str, action: Callable[[], optuna.Study]) -> optuna.Study:
    """Return what ``action`` opens or makes in a database.

    Args:
        storage: its URL, for messages.

    Raises:
        UsageError: it can't be opened, has no such study, or one already.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    shown = make_url(storage).render_as_string(hide_password=True)
    try:
        return action()
    except KeyError:
        raise UsageError(f"{shown}: has no study of this run. Name the --storage of its first call.") from None
    except optuna.exceptions.DuplicatedStudyError as error:
        raise UsageError(f"{shown}: {error}") from error
    except SQLAlchemyError as error:
        raise UsageError(f"{shown}: can't be opened as a database: {error}. Name another --storage.") from error
