"""An Optuna study over one or several search spaces. Its database is the truth about a search."""

import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from fer_ray.config.files import space_from_yaml, to_yaml
from fer_ray.config.schema import Config
from fer_ray.config.search_space import SearchSpace
from fer_ray.console.messages import redacted
from fer_ray.errors import DataError, UsageError
from fer_ray.search.database import open_database
from fer_ray.search.parameters import draw, parameters_of, ranges_changed, recall
from fer_ray.search.search_metric import OBJECTIVES
from fer_ray.search.strategy import DEFAULT_STRATEGY, Strategy, make_pruner, make_sampler, pruner_steps
from fer_ray.search.trial_records import BY_EPOCH, CONTINUES, FOLDER, INTERRUPTED, TrialRecord, best_record, read_record
from fer_ray.training.run_folder import Metrics


@dataclass
class RunningTrial:
    """A trial that was drawn and isn't closed."""

    number: int  # from 0
    space: str  # name of its space; ``params`` are the values that it drew from it
    params: dict[str, Any]
    config: Config
    folder: str  # name of the folder of its training run
    trial: Trial
    seconds: float = 0.0  # time of the epochs so far
    best: Metrics | None = None  # of the best epoch so far by the first objective
    by_epoch: list[float] = field(default_factory=list)  # the first objective after each epoch
    step: int = -1
    heard: float = 0.0  # time of the last report

    @property
    def epochs(self) -> int:
        """Number of epochs of the configuration."""
        return self.config.training.epochs

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last epoch, if each takes as long as the mean epoch so far; None before the first."""
        if not self.by_epoch:
            return None
        left = (self.epochs / len(self.by_epoch) - 1) * self.seconds
        return max(0.0, left - (time.monotonic() - self.heard))


class Study:
    """Draws candidates and stores the results of trials in an Optuna study, whose sampler and pruner it replaces."""

    def __init__(self, study: optuna.Study, spaces: Mapping[str, SearchSpace], strategy: Strategy):
        self.name, self.optuna = study.study_name, study
        self.spaces, self.strategy = dict(spaces), strategy
        self.dataset_fingerprint: str = study.user_attrs["dataset_fingerprint"]
        self.ranges_changed: bool = study.user_attrs["ranges_changed"]
        self._steps: int = study.user_attrs["steps"]
        trials = study.get_trials(deepcopy=False)
        seed = next(iter(spaces.values())).training.seed
        study.sampler = make_sampler(strategy, seed, len(trials), self.ranges_changed)
        study.pruner = make_pruner(strategy.scheduler, self._steps)
        self.running: dict[int, RunningTrial] = {}  # drawn by this process and not closed, by number
        # Read once: the search's folder is locked, so no other process closes a trial.
        self._finished = {
            trial.number: read_record(trial, self.spaces) for trial in trials if trial.state.is_finished()
        }

    @classmethod
    def create(
        cls,
        name: str,
        storage: str,
        spaces: Mapping[str, SearchSpace],
        dataset_fingerprint: str,
        strategy: Strategy = DEFAULT_STRATEGY,
        first: Iterable[tuple[str, Config, dict[str, Any]]] | None = None,
    ) -> "Study":
        """Create a study; ``UsageError`` if the storage can't be opened, or has a study of this name.

        ``first`` are trials to enqueue: space, configuration, user attributes; by default the defaults of each space.
        """
        directions = [StudyDirection.MAXIMIZE] * len(strategy.objectives)
        study = open_database(
            storage, lambda opened: optuna.create_study(storage=opened, study_name=name, directions=directions), True
        )
        for attribute, value in {
            "dataset_fingerprint": dataset_fingerprint,
            "objectives": list(strategy.objectives),
            "steps": pruner_steps(spaces),
            "ranges_changed": False,
        }.items():
            study.set_user_attr(attribute, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names([OBJECTIVES[name].label for name in strategy.objectives])
        _write_spaces(study, spaces)
        created = cls(study, spaces, strategy)
        for key, config, own in first or [(key, space.defaults, {}) for key, space in spaces.items()]:
            created.enqueue(key, config, own)
        return created

    @classmethod
    def read(cls, name: str, storage: str) -> "Study":
        """Open a study to read its results; raise a ``UsageError`` if the storage can't be opened or has none."""
        study = _load(name, storage)
        return cls(study, _read_spaces(study), Strategy(tuple(study.user_attrs["objectives"]), scheduler="none"))

    @classmethod
    def resume(
        cls,
        name: str,
        storage: str,
        spaces: Mapping[str, SearchSpace],
        dataset_fingerprint: str,
        strategy: Strategy = DEFAULT_STRATEGY,
    ) -> "Study":
        """Open a study to add trials. Sampler, scheduler and the bounds of ranges may differ from earlier calls.

        ``UsageError`` for a missing study, other objectives or spaces, ``DataError`` for another dataset.
        """
        study = _load(name, storage)
        attributes = study.user_attrs
        objectives = attributes["objectives"]
        if objectives != list(strategy.objectives):
            raise UsageError(
                f"study {name}: its objective is {','.join(objectives)}, not {','.join(strategy.objectives)}. Resume"
                f" with --objective {','.join(objectives)}, or start a new search."
            )
        if attributes["dataset_fingerprint"] != dataset_fingerprint:
            raise DataError(f"study {name}: searched on another dataset. Resume with that, or start a new search.")
        known = _read_spaces(study)
        if ranges_changed(name, known, spaces):
            study.set_user_attr("ranges_changed", True)
            _write_spaces(study, {key: spaces[key] for key in known})
        if study.user_attrs["ranges_changed"] and strategy.sampler not in ("tpe", "random"):
            raise UsageError(
                f"--sampler {strategy.sampler}: can't learn from trials with other ranges. Use tpe or random, or start"
                " a new search."
            )
        return cls(study, {key: spaces[key] for key in known}, strategy)

    def enqueue(self, key: str, config: Config, attributes: Mapping[str, Any]) -> None:
        """Let a configuration of the space of this name be the next trial, with these user attributes."""
        self.optuna.enqueue_trial(parameters_of(config, key, self.spaces), user_attrs=dict(attributes))

    def ask(self) -> RunningTrial:
        """Draw the next trial."""
        trial = self.optuna.ask()
        draw(trial, self.spaces)
        key, params, config = recall(trial.params, self.spaces)
        folder = trial.user_attrs.get(FOLDER, str(trial.number))
        self.running[trial.number] = running = RunningTrial(trial.number, key, params, config, folder, trial)
        return running

    def report(self, number: int, metrics: Mapping[str, Any]) -> bool:
        """Store the metrics of an epoch of a running trial; return whether the pruner would stop the trial.

        An epoch that was stored before is ignored: a trial whose process was lost reports its epochs again.
        """
        running, first, epoch = self.running[number], self.strategy.first.metric, int(metrics["epoch"])
        if epoch <= len(running.by_epoch):
            return False
        running.by_epoch.append(metrics[first])
        running.seconds, running.heard = running.seconds + metrics["seconds"], time.monotonic()
        if running.best is None or metrics[first] > running.best[first]:
            running.best = dict(metrics)
        running.trial.set_user_attr(BY_EPOCH, running.by_epoch)
        step = self._steps * epoch // running.epochs
        if len(self.strategy.objectives) > 1 or step == running.step:  # Optuna prunes by one objective only
            return False
        running.trial.report(running.best[first], step)
        running.step = step
        return running.trial.should_prune() and epoch < running.epochs

    def complete(self, number: int) -> TrialRecord:
        """Close a trial that ended by itself; its values are those of the best epoch by the first objective."""
        best = self.running[number].best
        assert best is not None, "a complete trial has reported an epoch"
        values = [best[OBJECTIVES[name].metric] for name in self.strategy.objectives]
        return self._close(number, TrialState.COMPLETE, values)

    def prune(self, number: int) -> TrialRecord:
        """Close a trial that was stopped early."""
        return self._close(number, TrialState.PRUNED)

    def fail(self, number: int, error: str) -> TrialRecord:
        """Close a trial that failed."""
        self.running[number].trial.set_user_attr("error", redacted(error))
        return self._close(number, TrialState.FAIL)

    def stop(self, number: int) -> TrialRecord:
        """Close a trial because the time budget is used up.

        It is PRUNED, COMPLETE if its last epoch was reported, or, before its first epoch, interrupted: a resumed search
        tries it again.
        """
        running = self.running[number]
        if len(running.by_epoch) == running.epochs:
            return self.complete(number)
        if running.by_epoch:
            return self.prune(number)
        trial = self.optuna.get_trials(deepcopy=False)[number]
        self._interrupt(trial, "the time budget was used up before the first epoch")
        return self._finished[number]

    def interrupt_running(self) -> int:
        """Close RUNNING trials as FAIL, enqueue each again with its parameters and folder, and return their number."""
        left = self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for trial in left:
            self._interrupt(trial, "the search was stopped while it ran")
        return len(left)

    @property
    def max_failures(self) -> int:
        """How often a trial may be restarted after its process was lost: the largest number over all spaces."""
        return max(space.training.max_failures for space in self.spaces.values())

    def folders_in_use(self) -> set[str]:
        """Return the names of the folders of running trials and of those to be continued."""
        waiting = self.optuna.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        continued = {trial.user_attrs[FOLDER] for trial in waiting if FOLDER in trial.user_attrs}
        return continued | {running.folder for running in self.running.values()}

    def counted(self) -> int:
        """Return the number of finished trials, without interrupted ones."""
        return sum(not record.interrupted for record in self._finished.values())

    def records(self) -> list[TrialRecord]:
        """Return all finished trials by number."""
        return [record for _, record in sorted(self._finished.items())]

    def best(self) -> TrialRecord | None:
        """Return the best trial as ``best_record`` does."""
        return best_record(self.records())

    def pareto_front(self) -> list[int]:
        """Return the numbers of the complete trials that no other trial dominates."""
        return [trial.number for trial in self.optuna.best_trials]

    def _interrupt(self, trial: FrozenTrial, error: str) -> None:
        """Close a trial as FAIL and enqueue it again.

        It is enqueued before it is closed: after a kill in between it is still RUNNING, and isn't enqueued twice.
        """
        trials = self.optuna.get_trials(deepcopy=False)
        # A trial that was killed while it drew has only some of the parameters that were enqueued for it.
        params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        if params and not any(other.user_attrs.get(CONTINUES) == trial.number for other in trials):
            folder = trial.user_attrs.get(FOLDER, str(trial.number))
            self.optuna.enqueue_trial(params, user_attrs={CONTINUES: trial.number, FOLDER: folder})
        if running := self.running.pop(trial.number, None):
            self._store_best(running)
        storage = self.optuna._storage  # an `optuna.Trial` would draw parameters again
        storage.set_trial_user_attr(trial._trial_id, "error", f"interrupted: {error}")
        storage.set_trial_user_attr(trial._trial_id, INTERRUPTED, True)
        self._note(self.optuna.tell(trial.number, state=TrialState.FAIL))

    def _close(self, number: int, state: TrialState, values: list[float] | None = None) -> TrialRecord:
        running = self.running.pop(number)
        self._store_best(running)
        running.trial.set_user_attr("seconds", running.seconds)
        return self._note(self.optuna.tell(running.trial, values, state=state))

    def _store_best(self, running: RunningTrial) -> None:
        for objective in OBJECTIVES.values():
            if running.best is not None and objective.metric in running.best:
                running.trial.set_user_attr(objective.name, running.best[objective.metric])

    def _note(self, trial: FrozenTrial) -> TrialRecord:
        self._finished[trial.number] = record = read_record(trial, self.spaces)
        return record


def _load(name: str, storage: str) -> optuna.Study:
    return open_database(storage, lambda opened: optuna.load_study(storage=opened, study_name=name))


def _write_spaces(study: optuna.Study, spaces: Mapping[str, SearchSpace]) -> None:
    study.set_user_attr("spaces", [(key, to_yaml(space)) for key, space in spaces.items()])


def _read_spaces(study: optuna.Study) -> dict[str, SearchSpace]:
    return {
        key: space_from_yaml(text, f"study {study.study_name}: space {key}") for key, text in study.user_attrs["spaces"]
    }
