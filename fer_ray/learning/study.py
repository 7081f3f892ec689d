"""The memory of a search: an Optuna study over one or several search spaces, whose database is the truth."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from fer_ray.config import Config
from fer_ray.config_files import Distribution, SearchSpace
from fer_ray.errors import DataError, UsageError
from fer_ray.learning.loop import Metrics

ARCHITECTURE = "architecture"
"""The parameter that chooses the space, in a study over several; the others are then called SPACE/CONFIG.PATH."""

SQLITE_PATIENCE_S = 60
"""How long a write waits for others who use the study's file."""


@dataclass(frozen=True)
class Candidate:
    """A configuration to try.

    Attributes:
        number: of the trial in its study, from 0.
        space: name of the search space it was drawn from.
    """

    number: int
    space: str
    config: Config


@dataclass(frozen=True)
class TrialRecord:
    """What the study knows of a finished trial.

    Attributes:
        number: from 0; the defaults of each space are the first.
        state: ``COMPLETE``, ``PRUNED`` (stopped early) or ``FAIL``.
        value: best validation accuracy over its epochs; of a pruned trial, the last one; None where it has none.
        macro_f1: of the epoch with the best validation accuracy.
        space: name of the search space it was drawn from.
        config: what it trained.
        accuracies: validation accuracy of each epoch, in order.
        seconds: spent in its epochs, training and validating.
        error: why it failed.
        started: when it was drawn, by the clock of the driver; None where the database doesn't know.
        ended: when it was closed; of one that a dead driver left, when the search was resumed.
    """

    number: int
    state: str
    value: float | None
    macro_f1: float | None
    space: str
    config: Config
    accuracies: list[float]
    seconds: float | None
    error: str | None
    started: datetime | None
    ended: datetime | None

    @property
    def best_epoch(self) -> int | None:
        """The first epoch with the best validation accuracy, from 1."""
        return 1 + self.accuracies.index(max(self.accuracies)) if self.accuracies else None


class Study:
    """Asks for candidates and keeps what became of them.

    Args:
        study: the Optuna study; its sampler is replaced.
    """

    def __init__(self, study: optuna.Study, spaces: Mapping[str, SearchSpace]):
        self.name = study.study_name
        self.spaces = dict(spaces)
        self._study = study
        self._study.sampler = _sampler(spaces, len(study.get_trials(deepcopy=False)))
        self._running: dict[int, _Running] = {}

    @classmethod
    def create(cls, name: str, storage: str, spaces: Mapping[str, SearchSpace], dataset_fingerprint: str) -> "Study":
        """Make a study and enqueue the defaults of each space.

        Raises:
            UsageError: the storage can't be opened, or has a study of this name.
        """
        study = _open(
            storage, lambda opened: optuna.create_study(storage=opened, study_name=name, direction="maximize")
        )
        study.set_user_attr("dataset_fingerprint", dataset_fingerprint)
        study.set_user_attr("spaces", {key: space.model_dump(mode="json") for key, space in spaces.items()})
        for key, space in spaces.items():
            study.enqueue_trial(_parameters(key, space, spaces))
        return cls(study, spaces)

    @classmethod
    def load(cls, name: str, storage: str, spaces: Mapping[str, SearchSpace], dataset_fingerprint: str) -> "Study":
        """Open a study to go on with it.

        Raises:
            UsageError: the storage can't be opened, has no such study, or it searched other spaces.
            DataError: it searched on another dataset.
        """
        study = _open(storage, lambda opened: optuna.load_study(storage=opened, study_name=name))
        former = study.user_attrs.get("spaces")
        if former != {key: space.model_dump(mode="json") for key, space in spaces.items()}:
            names = ", ".join(former or {}) or "no known spaces"
            raise UsageError(
                f"study {name}: searched {names}, not the same as {', '.join(spaces)} with the values given now."
                " Resume with the same --space files and --set values, or start a new search."
            )
        if study.user_attrs.get("dataset_fingerprint") != dataset_fingerprint:
            raise DataError(f"study {name}: searched on another dataset. Resume with that, or start a new search.")
        return cls(study, spaces)

    def ask(self) -> Candidate:
        """Draw the next candidate; its trial is RUNNING from now on."""
        trial = self._study.ask()
        space = next(iter(self.spaces))
        if len(self.spaces) > 1:
            space = trial.suggest_categorical(ARCHITECTURE, list(self.spaces))
        values = {
            path: _suggest(trial, self._parameter(space, path), distribution)
            for path, distribution in self.spaces[space].search.items()
        }
        self._running[trial.number] = _Running(trial)
        return Candidate(trial.number, space, self.spaces[space].with_values(values))

    def report(self, number: int, metrics: Metrics) -> None:
        """Note the metrics of a running trial's epoch, as ``fit`` reports them."""
        running = self._running[number]
        running.trial.report(metrics["validation_accuracy"], int(metrics["epoch"]))
        running.seconds += metrics["seconds"]
        if metrics["validation_accuracy"] > running.best:
            running.best, running.macro_f1 = metrics["validation_accuracy"], metrics["validation_macro_f1"]

    def complete(self, number: int) -> TrialRecord:
        """Close a trial that trained to its end; its value is the best validation accuracy of its epochs."""
        return self._close(number, TrialState.COMPLETE, self._running[number].best)

    def prune(self, number: int) -> TrialRecord:
        """Close a trial that was stopped early."""
        return self._close(number, TrialState.PRUNED)

    def fail(self, number: int, error: str) -> TrialRecord:
        """Close a trial that crashed."""
        self._running[number].trial.set_user_attr("error", error)
        return self._close(number, TrialState.FAIL)

    def running(self) -> list[int]:
        """Numbers of the trials that this process asked for and hasn't closed."""
        return list(self._running)

    def fail_interrupted(self) -> int:
        """Close as FAIL what an interrupted search left RUNNING, and enqueue the same parameters again.

        Returns:
            How many there were.
        """
        left = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for trial in left:
            # Killed within `ask`, it has only some of the parameters that were enqueued for it.
            again = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            writable = optuna.Trial(self._study, trial._trial_id)
            writable.set_user_attr("error", "interrupted: the search was stopped while it ran")
            writable.set_user_attr("interrupted", True)
            self._study.tell(trial.number, state=TrialState.FAIL)
            if again:
                self._study.enqueue_trial(again)
        self._running.clear()
        return len(left)

    def counted(self) -> int:
        """Finished trials that count towards the number asked for: all but the interrupted ones."""
        trials = self._study.get_trials(deepcopy=False)
        return sum(trial.state.is_finished() and "interrupted" not in trial.user_attrs for trial in trials)

    def records(self) -> list[TrialRecord]:
        """All finished trials, by number."""
        trials = self._study.get_trials(deepcopy=False)
        return [self._record(trial) for trial in trials if trial.state.is_finished()]

    def best(self) -> TrialRecord | None:
        """The complete trial with the best value, the first of equal ones; None where no trial is complete."""
        complete = [record for record in self.records() if record.state == "COMPLETE"]
        return max(complete, key=lambda record: (record.value or 0.0, -record.number), default=None)

    def _parameter(self, space: str, path: str) -> str:
        return f"{space}/{path}" if len(self.spaces) > 1 else path

    def _close(self, number: int, state: TrialState, value: float | None = None) -> TrialRecord:
        running = self._running.pop(number)
        if running.macro_f1 is not None:
            running.trial.set_user_attr("macro_f1", running.macro_f1)
        running.trial.set_user_attr("seconds", running.seconds)
        return self._record(self._study.tell(running.trial, value, state=state))

    def _record(self, trial: FrozenTrial) -> TrialRecord:
        space = trial.params.get(ARCHITECTURE, next(iter(self.spaces)))
        values = {
            path: trial.params[self._parameter(space, path)]
            for path in self.spaces[space].search
            if self._parameter(space, path) in trial.params
        }
        return TrialRecord(
            number=trial.number,
            state=trial.state.name,
            value=trial.value,
            macro_f1=trial.user_attrs.get("macro_f1"),
            space=space,
            config=self.spaces[space].with_values(values),
            accuracies=[value for _, value in sorted(trial.intermediate_values.items())],
            seconds=trial.user_attrs.get("seconds"),
            error=trial.user_attrs.get("error"),
            started=_in_utc(trial.datetime_start),
            ended=_in_utc(trial.datetime_complete),
        )


class _Running:
    """What is known of a trial before it ends."""

    def __init__(self, trial: optuna.Trial):
        self.trial = trial
        self.best, self.seconds = -1.0, 0.0
        self.macro_f1: float | None = None


def _in_utc(moment: datetime | None) -> datetime | None:
    """Optuna writes local times without their zone."""
    return None if moment is None else moment.astimezone(UTC)


def value_at(config: Config, path: str) -> Any:
    """The value at a config path such as ``model.dropout``."""
    section, field = path.split(".")
    return getattr(getattr(config, section), field)


def short(value: Any) -> str:
    """Write a parameter's value for a line of text."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _open(storage: str, action: Callable[[RDBStorage], optuna.Study]) -> optuna.Study:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = make_url(storage)
    shown = url.render_as_string(hide_password=True)
    # A dashboard that reads much locks SQLite's file for as long; Python's 5 s of patience would then end the search
    # (optuna-dashboard issue 545).
    patience = {"connect_args": {"timeout": SQLITE_PATIENCE_S}} if url.get_backend_name() == "sqlite" else None
    try:
        study = action(RDBStorage(storage, engine_kwargs=patience))
    except KeyError:
        raise UsageError(f"{shown}: has no study of this run. Name the --storage of its first call.") from None
    except optuna.exceptions.DuplicatedStudyError as error:
        raise UsageError(f"{shown}: {error}") from error
    except SQLAlchemyError as error:
        raise UsageError(f"{shown}: can't be opened as a database: {error}. Name another --storage.") from error
    return study


def _sampler(spaces: Mapping[str, SearchSpace], trials: int) -> optuna.samplers.BaseSampler:
    """TPE (Bergstra et al., NeurIPS 2011) over parameters jointly; grouped, as each space has its own parameters, and
    with the constant liar, which keeps trials that run at once apart.

    The seed takes in how many trials there are, so that a resumed search draws other candidates than its beginning.
    """
    seed = np.random.SeedSequence([next(iter(spaces.values())).training.seed, trials]).generate_state(1)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=int(seed))


def _parameters(key: str, space: SearchSpace, spaces: Mapping[str, SearchSpace]) -> dict[str, Any]:
    """The defaults of a space as parameters of the study."""
    defaults = {path: value_at(space, path) for path in space.search}
    if len(spaces) == 1:
        return defaults
    return {ARCHITECTURE: key} | {f"{key}/{path}": value for path, value in defaults.items()}


def _suggest(trial: optuna.Trial, name: str, distribution: Distribution) -> Any:
    values = distribution.values
    if distribution.kind == "categorical":
        return trial.suggest_categorical(name, values)
    if distribution.kind == "int":
        return trial.suggest_int(name, values[0], values[1])
    return trial.suggest_float(name, values[0], values[1], log=distribution.kind == "log_uniform")
