"""The arguments of a search, all checked before anything starts."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from fer_ray.config.paths import config_paths, with_values
from fer_ray.config.search_space import SearchSpace
from fer_ray.config.tune_options import TuneOptions
from fer_ray.console.messages import is_uploaded
from fer_ray.dataset.store import DatasetInfo, PreparedDataset
from fer_ray.errors import Problems, UsageError
from fer_ray.search.strategy import DEFAULT_STRATEGY, Strategy, choose_strategy
from fer_ray.search.trial_records import short
from fer_ray.storage.output import Output
from fer_ray.training.requirements import training_problems

_CHECKED = (
    *(path for path in config_paths() if path.startswith("model.") and path != "model.dropout"),
    *("training.accumulate", "training.batch_size", "schedule.first_size", "loss.soft_labels", "loss.teachers"),
)
"""Config paths that the checks of a configuration depend on."""
_MOST_CHECKED = 500


@dataclass(frozen=True)
class SearchRequest:
    """A search whose arguments were checked: the user's options, and what was made of them; ``run`` is its output."""

    options: TuneOptions
    dataset: PreparedDataset
    run: Output
    strategy: Strategy

    @property
    def spaces(self) -> dict[str, SearchSpace]:
        """The search spaces by name."""
        return self.options.search_spaces


def check_request(options: TuneOptions) -> SearchRequest:
    """Check what the options alone don't tell: dataset, output, database, and the spaces with the dataset.

    ``UsageError`` with all problems, those of the dataset included; ``DataError`` if only the dataset is invalid.
    """
    problems = Problems()
    prepared, run, strategy = None, None, DEFAULT_STRATEGY
    with problems.collect():
        prepared = PreparedDataset(options.dataset)
        prepared.check_trainable()
    for name, space in options.search_spaces.items():
        lines = _space_problems(space, prepared.info if prepared else None, options.workers_per_trial)
        problems.add(*(f"{name}: {line}" for line in lines))
    with problems.collect():
        run = Output.at(options.output)
        run.require_usable(options.resume, [options.dataset])
    with problems.collect():
        _check_storage(options.storage)
    with problems.collect():
        strategy = choose_strategy(options)
    problems.stop()
    assert prepared is not None and run is not None
    return SearchRequest(options, prepared, run, strategy)


def _space_problems(space: SearchSpace, info: DatasetInfo | None, workers: int) -> Iterator[str]:
    """Check the defaults, and then the combinations of the searched values that the checks depend on."""
    if wrong := training_problems(space.defaults, info, workers):
        yield from wrong
        return
    searched = {path: by.extremes() for path, by in space.search.items() if path in _CHECKED}
    for values in itertools.islice(itertools.product(*searched.values()) if searched else (), _MOST_CHECKED):
        drawn = dict(zip(searched, values, strict=True))
        if wrong := training_problems(with_values(space, drawn), info, workers):
            named = ", ".join(f"{path} = {short(value)}" for path, value in drawn.items())
            yield from (f"search: may draw {named}: {line}" for line in wrong)
            return


def _check_storage(storage: str | None) -> None:
    if storage is None:
        return
    remedy = "Give a database URL, such as sqlite:////shared/study.db or postgresql://user@host/name."
    try:
        url = make_url(storage)
        url.get_dialect().import_dbapi()
    except (ArgumentError, NoSuchModuleError) as error:
        shown = storage if "://" in storage else storage.rpartition("@")[2]  # no URL, in which a password is redacted
        raise UsageError(f"--storage {shown}: {error}. {remedy}") from error
    except ImportError as error:
        raise UsageError(f"--storage {storage}: its driver is missing ({error}). Install that package.") from error
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise UsageError(f"--storage {storage}: is in memory, so nothing could be resumed. Name a file. {remedy}")
    if url.get_backend_name() == "sqlite" and is_uploaded(file := Path(url.database or "").absolute()):
        raise UsageError(f"{file}: this database would be lost after the job.")
