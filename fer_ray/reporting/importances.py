"""How much each searched value mattered, by fANOVA (Hutter et al., ICML 2014) over the trials of a study."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from fer_ray.errors import DataError
from fer_ray.learning.study import ARCHITECTURE

MIN_TRIALS = 20
"""Complete trials of a space, below which a forest over them says more of its seed than of the search."""


@dataclass(frozen=True)
class Importances:
    """Of the values of one search space.

    Attributes:
        space: its name.
        trials: complete ones that the shares rest on, or that there are.
        shares: config path to its share of the variance of the accuracy, largest first, sum 1; empty below
            ``MIN_TRIALS``, or where all trials came out equal.
    """

    space: str
    trials: int
    shares: Mapping[str, float]


def read_importances(folder: Path) -> list[Importances]:
    """Compute them for each space of a search's ``study.db``; none where the study lies in another database.

    Raises:
        DataError: ``study.db`` can't be read.
    """
    database, name = folder / "study.db", folder / "study.json"
    if not (database.is_file() and name.is_file()):
        return []
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        # Opened to read alone, as a page changes nothing of what it shows; SQLAlchemy's own URL for that loses what
        # is quoted in a path.
        url = f"file:{quote(str(database.absolute()))}?mode=ro"
        storage = RDBStorage("sqlite://", engine_kwargs={"creator": lambda: sqlite3.connect(url, uri=True)})
        study = optuna.load_study(study_name=json.loads(name.read_text("utf-8"))["study"], storage=storage)
        spaces: dict[str, Any] = study.user_attrs["spaces"]
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    except (SQLAlchemyError, KeyError, ValueError) as error:
        raise DataError(f"{database}: not readable as the study of a search: {error!r}.") from error
    return [_of_space(study, key, list(space["search"]), trials, len(spaces) > 1) for key, space in spaces.items()]


def _of_space(
    study: optuna.Study, key: str, paths: Sequence[str], trials: Sequence[FrozenTrial], several: bool
) -> Importances:
    own = [trial for trial in trials if not several or trial.params.get(ARCHITECTURE) == key]
    if len(own) < MIN_TRIALS or len({trial.values[0] for trial in own}) == 1:
        return Importances(key, len(own), {})
    params = [f"{key}/{path}" if several else path for path in paths]
    evaluator = FanovaImportanceEvaluator(seed=0)
    shares = get_param_importances(study, evaluator=evaluator, params=params, target=lambda trial: trial.values[0])
    return Importances(key, len(own), {name.rpartition("/")[2]: share for name, share in shares.items()})
