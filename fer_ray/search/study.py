"""The memory of a search: an Optuna study over one or several search spaces, whose database is the truth."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from fer_ray.config.files import space_from_yaml, to_yaml
from fer_ray.config.schema import Config
from fer_ray.config.search_space import SearchSpace
from fer_ray.console.messages import redacted
from fer_ray.errors import DataError, UsageError
from fer_ray.search.database import open_study, require_there
from fer_ray.search.parameters import draw, parameters_of
from fer_ray.search.strategy import DEFAULT_STRATEGY, Strategy, make_sampler, name_objectives
from fer_ray.search.transferred_trials import carried_finished, carried_waiting
from fer_ray.search.trial_records import (
    BY_EPOCH,
    CONTINUES,
    FAILURES,
    INTERRUPTED,
    RunningTrial,
    TrialRecord,
    read_record,
)
from fer_ray.training.run_folder import Metrics


@dataclass(frozen=True)
class Candidate:
    """A configuration to try.

    Attributes:
        number: of the trial in its study, from 0.
        space: name of the search space it was drawn from.
        continues: numbers of the interrupted trials that it goes on with, the nearest first.
    """

    number: int
    space: str
    config: Config
    continues: tuple[int, ...] = ()


class Study:
    """Asks for candidates and keeps what became of them.

    Args:
        study: the Optuna study; its sampler is replaced.
    """

    def __init__(self, study: optuna.Study, spaces: Mapping[str, SearchSpace], strategy: Strategy):
        self.name = study.study_name
        self.spaces, self.strategy = dict(spaces), strategy
        self._study = study
        trials = study.get_trials(deepcopy=False)
        seed = next(iter(spaces.values())).training.seed
        self._study.sampler = make_sampler(strategy, seed, len(trials))
        self._running: dict[int, RunningTrial] = {}
        self._continues = {
            trial.number: trial.user_attrs[CONTINUES] for trial in trials if CONTINUES in trial.user_attrs
        }
        # Read once: the search's folder is locked, so that nobody else closes a trial.
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
        _begin(study, spaces)
        return cls(study, spaces, strategy)

    @classmethod
    def load(cls, name: str, storage: str, dataset_fingerprint: str, strategy: Strategy = DEFAULT_STRATEGY) -> "Study":
        """Open a study, with the spaces that it has; sampler and scheduler may be other ones than before.

        Raises:
            UsageError: the storage can't be opened, has no such study, or that has other objectives.
            DataError: it searched on another dataset.
        """
        require_there(storage)
        study = open_study(storage, lambda opened: optuna.load_study(storage=opened, study_name=name))
        attributes = study.user_attrs
        objectives = attributes["objectives"]
        if objectives != list(strategy.objectives):
            raise UsageError(
                f"study {name}: its objective is {','.join(objectives)}, not {','.join(strategy.objectives)}. Resume"
                f" with --objective {','.join(objectives)}, or start a new search."
            )
        if attributes["dataset_fingerprint"] != dataset_fingerprint:
            raise DataError(f"study {name}: searched on another dataset. Resume with that, or start a new search.")
        spaces = {key: space_from_yaml(text, f"study {name}: space {key}") for key, text in attributes["spaces"]}
        return cls(study, spaces, strategy)

    def with_spaces(self, name: str, spaces: Mapping[str, SearchSpace]) -> "Study":
        """Make a study over other spaces in the same database, which begins with the trials of this one.

        Each keeps its number. Those that the spaces could have drawn too are trials like any other for the sampler;
        the records of the rest stay what they were, and the sampler hears nothing of them.

        Args:
            name: of the new study; this one stays in the database as it is.
        """
        study = optuna.create_study(storage=self._study._storage, study_name=name, directions=self._study.directions)
        for key, value in self._study.user_attrs.items():
            study.set_user_attr(key, value)
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state.is_finished():
                study.add_trial(carried_finished(trial, self._finished[trial.number], spaces))
            elif waiting := carried_waiting(trial, self.spaces, spaces):
                study.add_trial(waiting)
        _begin(study, spaces)
        return Study(study, spaces, self.strategy)

    def searches(self, spaces: Mapping[str, SearchSpace]) -> bool:
        """Whether these are its spaces, in this order, which is that of a parameter's categories."""
        return list(self.spaces.items()) == list(spaces.items())

    def ask(self) -> Candidate:
        """Draw the next candidate; its trial is RUNNING from now on."""
        trial = self._study.ask()
        key, config = draw(trial, self.spaces)
        attributes = trial.user_attrs
        if CONTINUES in attributes:
            self._continues[trial.number] = attributes[CONTINUES]
        self._running[trial.number] = RunningTrial(trial, attributes.get(FAILURES, 0), config)
        return Candidate(trial.number, key, config, tuple(self._line_of(trial.number)))

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
            running.trial.set_user_attr(BY_EPOCH, running.by_epoch)

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
        self._running[number].trial.set_user_attr("error", redacted(error))
        return self._close(number, TrialState.FAIL)

    def lose(self, number: int, error: str) -> TrialRecord:
        """Close a trial whose process or node was lost; another one will go on with it.

        What is lost more than ``training.max_failures`` times is closed as one that crashed.
        """
        running = self._running[number]
        failures = running.failures + 1
        if failures > running.most:
            again = f"lost {failures} times, once more than training.max_failures = {running.most} allows"
            return self.fail(number, f"{error}\n{again}" if running.most else error)
        self._hand_on(number, running.trial.params, failures)
        return self._interrupt(number, running.trial._trial_id, error)

    def stop(self, number: int) -> TrialRecord:
        """Close a trial whose search has no more time: PRUNED, or, before its first epoch, handed on to another.

        One that has its last epoch by then is complete.
        """
        running = self._running[number]
        if running.best and len(running.by_epoch) == running.epochs and set(self.strategy.metrics) <= set(running.best):
            return self.complete(number)
        if running.by_epoch:
            return self.prune(number)
        self._hand_on(number, running.trial.params, running.failures)
        return self._interrupt(number, running.trial._trial_id, "the search's time was over before the first epoch")

    def fail_interrupted(self) -> int:
        """Close as FAIL what an interrupted search left RUNNING; other trials will go on with the same parameters.

        Returns:
            How many there were.
        """
        trials = self._study.get_trials(deepcopy=False)
        handed_on = {trial.user_attrs.get(CONTINUES) for trial in trials}  # by a search that was killed within this
        left = [trial for trial in trials if trial.state == TrialState.RUNNING]
        for trial in left:
            # Killed within `ask`, it has only some of the parameters that were enqueued for it.
            again = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            if again and trial.number not in handed_on:
                self._hand_on(trial.number, again, trial.user_attrs.get(FAILURES, 0))
            self._interrupt(trial.number, trial._trial_id, "the search was stopped while it ran")
        return len(left)

    def running(self) -> list[int]:
        """Numbers of the trials that this process asked for and hasn't closed."""
        return list(self._running)

    def heard(self, number: int) -> int:
        """Epochs of a running trial that were reported."""
        return len(self._running[number].by_epoch)

    def needed(self) -> set[int]:
        """Numbers of the trials whose folders are still of use: those that run, and those that are to be continued."""
        needed = set(self._running)
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            previous = trial.user_attrs.get(CONTINUES)
            if previous is not None:
                needed |= {previous, *self._line_of(previous)}
        return needed

    def counted(self) -> int:
        """Finished trials that count towards the number asked for: all but the interrupted ones."""
        return sum(not record.interrupted for record in self._finished.values())

    def records(self) -> list[TrialRecord]:
        """All finished trials, by number."""
        return [record for _, record in sorted(self._finished.items())]

    def best(self) -> TrialRecord | None:
        """The complete trial best by the first objective, the first of equal ones.

        Where no trial is complete, it is the one with the best epoch among those that were stopped early, by the
        search's time or by Ctrl-C; None where these have no epoch either.
        """
        went_on = [record for record in self.records() if record.by_epoch or not record.interrupted]
        continued = {number for record in went_on for number in self._line_of(record.number)}
        found = [record for record in self.records() if record.state == "COMPLETE"] or [
            record
            for record in self.records()
            if record.by_epoch and (record.state == "PRUNED" or (record.interrupted and record.number not in continued))
        ]
        return max(found, key=lambda record: (record.reached or 0.0, -record.number), default=None)

    def pareto_front(self) -> list[int]:
        """Numbers of the complete trials than which no other is better by one objective and as good by the others."""
        complete = [record for record in self.records() if record.state == "COMPLETE"]
        return [record.number for record in complete if not any(other.beats(record) for other in complete)]

    def _hand_on(self, number: int, parameters: dict[str, Any], failures: int) -> None:
        """Enqueue a trial that goes on with another one.

        This comes before that one is closed: a kill in between leaves it RUNNING, and not lost.
        """
        self._study.enqueue_trial(parameters, user_attrs={CONTINUES: number, FAILURES: failures})

    def _interrupt(self, number: int, key: int, error: str) -> TrialRecord:
        """Close a trial, by its key in the database, that another one goes on with: that one counts its seconds too.

        Of the error the first line is kept; Ray adds paragraphs of what may have been the cause.
        """
        if running := self._running.pop(number, None):
            running.note_best()
        storage = self._study._storage  # an `optuna.Trial` of it would draw parameters anew
        storage.set_trial_user_attr(key, "error", redacted(f"interrupted: {error.splitlines()[0]}"))
        storage.set_trial_user_attr(key, INTERRUPTED, True)
        return self._note(self._study.tell(number, state=TrialState.FAIL))

    def _line_of(self, number: int) -> Iterator[int]:
        """Yield the trials that a trial goes on with, the nearest first."""
        previous = self._continues.get(number)
        while previous is not None:
            yield previous
            previous = self._continues.get(previous)

    def _close(self, number: int, state: TrialState, values: list[float] | None = None) -> TrialRecord:
        running = self._running.pop(number)
        running.note_best()
        running.trial.set_user_attr("seconds", running.seconds)
        return self._note(self._study.tell(running.trial, values, state=state))

    def _note(self, trial: FrozenTrial) -> TrialRecord:
        self._finished[trial.number] = record = read_record(trial, self.spaces)
        return record


def _begin(study: optuna.Study, spaces: Mapping[str, SearchSpace]) -> None:
    """Note what a study searches, and enqueue the defaults of each space where it has no trial of them."""
    study.set_user_attr("spaces", [(key, to_yaml(space)) for key, space in spaces.items()])
    for key, space in spaces.items():
        defaults = parameters_of(space.defaults, key, spaces)
        assert defaults is not None, "a request whose defaults lie outside their space is refused"
        study.enqueue_trial(defaults, skip_if_exists=True)
