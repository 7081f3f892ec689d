"""The memory of a search: an Optuna study over one or several search spaces, whose database is the truth."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from fer_ray.config import Config
from fer_ray.config_paths import value_at
from fer_ray.errors import DataError, UsageError
from fer_ray.learning.loop import Metrics
from fer_ray.learning.objectives import OBJECTIVES
from fer_ray.learning.parameters import default_parameters, restored, suggest
from fer_ray.learning.storage import open_study
from fer_ray.learning.strategy import DEFAULT_STRATEGY, Strategy, make_sampler, name_objectives
from fer_ray.search_spaces import Distribution, SearchSpace

ARCHITECTURE = "architecture"
"""The parameter that chooses the space, in a study over several; the others are then called SPACE/CONFIG.PATH, and
SPACE/OPTION/CONFIG.PATH where an option brought them."""


_BY_EPOCH = "by_epoch"


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
        values: of the objectives, in the epoch that is best by the first one; of a pruned trial, the first objective
            in its last epoch; None where it has none.
        accuracy: of the epoch that is best by the first objective, as are macro_f1 and images_per_s.
        images_per_s: of prediction, measured in the trial; None where nobody asked.
        space: name of the search space it was drawn from.
        params: what was drawn, by config path.
        config: what it trained.
        by_epoch: the first objective after each epoch, in order.
        seconds: spent in its epochs, training and validating.
        error: why it failed.
        started: when it was drawn, by the clock of the driver; None where the database doesn't know.
        ended: when it was closed; of one that a dead driver left, when the search was resumed.
    """

    number: int
    state: str
    values: tuple[float, ...] | None
    accuracy: float | None
    macro_f1: float | None
    images_per_s: float | None
    space: str
    params: dict[str, Any]
    config: Config
    by_epoch: list[float]
    seconds: float | None
    error: str | None
    started: datetime | None
    ended: datetime | None

    @property
    def value(self) -> float | None:
        """Of the first objective."""
        return self.values[0] if self.values else None

    @property
    def best_epoch(self) -> int | None:
        """The first epoch that is best by the first objective, from 1."""
        return 1 + self.by_epoch.index(max(self.by_epoch)) if self.by_epoch else None


class Study:
    """Asks for candidates and keeps what became of them.

    Args:
        study: the Optuna study; its sampler is replaced.
    """

    def __init__(self, study: optuna.Study, spaces: Mapping[str, SearchSpace], strategy: Strategy):
        self.name = study.study_name
        self.spaces, self.strategy = dict(spaces), strategy
        self._study = study
        seed = next(iter(spaces.values())).training.seed
        self._study.sampler = make_sampler(strategy, seed, len(study.get_trials(deepcopy=False)))
        self._running: dict[int, _Running] = {}
        self._finished: dict[int, TrialRecord] = {}

    @classmethod
    def create(
        cls,
        name: str,
        storage: str,
        spaces: Mapping[str, SearchSpace],
        dataset_fingerprint: str,
        strategy: Strategy = DEFAULT_STRATEGY,
    ) -> "Study":
        """Make a study and enqueue the defaults of each space.

        Raises:
            UsageError: the storage can't be opened, or has a study of this name.
        """
        directions = [StudyDirection.MAXIMIZE] * len(strategy.objectives)
        study = open_study(
            storage, lambda opened: optuna.create_study(storage=opened, study_name=name, directions=directions)
        )
        study.set_user_attr("dataset_fingerprint", dataset_fingerprint)
        study.set_user_attr("objectives", list(strategy.objectives))
        name_objectives(study, strategy)
        study.set_user_attr("spaces", _described(spaces))
        for key, space in spaces.items():
            architecture = {ARCHITECTURE: key} if len(spaces) > 1 else {}
            study.enqueue_trial(architecture | default_parameters(space, _prefix(key, spaces)))
        return cls(study, spaces, strategy)

    @classmethod
    def load(
        cls,
        name: str,
        storage: str,
        spaces: Mapping[str, SearchSpace],
        dataset_fingerprint: str,
        strategy: Strategy = DEFAULT_STRATEGY,
    ) -> "Study":
        """Open a study to go on with it; sampler and scheduler may be other ones than before.

        Raises:
            UsageError: the storage can't be opened, has no such study, or it searched other spaces or by other
                objectives.
            DataError: it searched on another dataset.
        """
        study = open_study(storage, lambda opened: optuna.load_study(storage=opened, study_name=name))
        former, problems = study.user_attrs.get("spaces"), list[str]()
        if former != _described(spaces):
            names = ", ".join(former or {}) or "no known spaces"
            problems.append(
                f"study {name}: searched {names}, not the same as {', '.join(spaces)} with the values given now."
                " Resume with the same --space files and --set values, or start a new search."
            )
        objectives = study.user_attrs.get("objectives", [])
        if objectives != list(strategy.objectives):
            problems.append(
                f"study {name}: its objective is {','.join(objectives)}, not {','.join(strategy.objectives)}. Resume"
                f" with --objective {','.join(objectives)}, or start a new search."
            )
        if problems:
            raise UsageError(problems)
        if study.user_attrs.get("dataset_fingerprint") != dataset_fingerprint:
            raise DataError(f"study {name}: searched on another dataset. Resume with that, or start a new search.")
        return cls(study, spaces, strategy)

    def ask(self) -> Candidate:
        """Draw the next candidate; its trial is RUNNING from now on."""
        trial = self._study.ask()
        key = next(iter(self.spaces))
        if len(self.spaces) > 1:
            key = trial.suggest_categorical(ARCHITECTURE, list(self.spaces))
        space = self.spaces[key]
        prefix = _prefix(key, self.spaces)
        values = space.draw(lambda name, _, searched: suggest(trial, prefix + name, searched))
        self._running[trial.number] = _Running(trial)
        return Candidate(trial.number, key, space.with_values(values))

    def report(self, number: int, metrics: Metrics) -> None:
        """Note the metrics of a running trial's epoch, as ``fit`` reports them."""
        running, first = self._running[number], self.strategy.first.metric
        running.by_epoch.append(metrics[first])
        running.seconds += metrics["seconds"]
        if running.best is None or metrics[first] > running.best[first]:
            running.best = metrics
        if len(self.strategy.objectives) == 1:
            running.trial.report(metrics[first], int(metrics["epoch"]))
        else:  # Optuna has no intermediate values where objectives are several
            running.trial.set_user_attr(_BY_EPOCH, running.by_epoch)

    def complete(self, number: int) -> TrialRecord:
        """Close a trial that trained to its end; its values are those of the epoch best by the first objective."""
        best = self._running[number].best
        assert best is not None, "a trial that trained to its end has reported an epoch"
        return self._close(number, TrialState.COMPLETE, [best[metric] for metric in self.strategy.metrics])

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
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state.is_finished() and trial.number not in self._finished:
                self._finished[trial.number] = self._record(trial)
        return [record for _, record in sorted(self._finished.items())]

    def best(self) -> TrialRecord | None:
        """The complete trial best by the first objective, the first of equal ones; None where no trial is complete."""
        complete = [record for record in self.records() if record.state == "COMPLETE"]
        return max(complete, key=lambda record: (record.value or 0.0, -record.number), default=None)

    def pareto_front(self) -> list[int]:
        """Numbers of the complete trials than which no other is better by one objective and as good by the others."""
        return [trial.number for trial in self._study.best_trials]

    def _close(self, number: int, state: TrialState, values: list[float] | None = None) -> TrialRecord:
        running = self._running.pop(number)
        for objective in OBJECTIVES.values():
            if running.best is not None and objective.metric in running.best:
                running.trial.set_user_attr(objective.name, running.best[objective.metric])
        running.trial.set_user_attr("seconds", running.seconds)
        return self._record(self._study.tell(running.trial, values, state=state))

    def _record(self, trial: FrozenTrial) -> TrialRecord:
        key = trial.params.get(ARCHITECTURE, next(iter(self.spaces)))
        space, prefix, params = self.spaces[key], _prefix(key, self.spaces), dict[str, Any]()

        def drawn(name: str, path: str, distribution: Distribution) -> Any:
            if prefix + name not in trial.params:  # killed before it was drawn
                return value_at(space, path)
            params[path] = restored(trial.params[prefix + name], distribution)
            return params[path]

        by_epoch = [value for _, value in sorted(trial.intermediate_values.items())]
        return TrialRecord(
            number=trial.number,
            state=trial.state.name,
            values=tuple(trial.values) if trial.values else None,
            accuracy=trial.user_attrs.get("accuracy"),
            macro_f1=trial.user_attrs.get("macro_f1"),
            images_per_s=trial.user_attrs.get("images_per_s"),
            space=key,
            config=space.with_values(space.draw(drawn)),
            params=params,
            by_epoch=by_epoch or trial.user_attrs.get(_BY_EPOCH, []),
            seconds=trial.user_attrs.get("seconds"),
            error=trial.user_attrs.get("error"),
            started=_in_utc(trial.datetime_start),
            ended=_in_utc(trial.datetime_complete),
        )


class _Running:
    """What is known of a trial before it ends.

    Attributes:
        best: the metrics of the epoch that is best by the first objective.
    """

    def __init__(self, trial: optuna.Trial):
        self.trial, self.seconds = trial, 0.0
        self.best: Metrics | None = None
        self.by_epoch: list[float] = []


def _in_utc(moment: datetime | None) -> datetime | None:
    """Optuna writes local times without their zone."""
    return None if moment is None else moment.astimezone(UTC)


def short(value: Any) -> str:
    """Write a parameter's value for a line of text."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _described(spaces: Mapping[str, SearchSpace]) -> dict[str, Any]:
    """Search spaces as JSON has them, to be kept and compared."""
    return {key: json.loads(space.model_dump_json()) for key, space in spaces.items()}


def _prefix(key: str, spaces: Mapping[str, SearchSpace]) -> str:
    """What the names of a space's parameters begin with."""
    return f"{key}/" if len(spaces) > 1 else ""
