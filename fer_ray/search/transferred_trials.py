"""Trials of a study as trials of another one, over other search spaces, that begins with them."""

from collections.abc import Mapping
from typing import Any

from optuna.trial import FixedTrial, FrozenTrial, TrialState

from fer_ray.config.search_space import SearchSpace
from fer_ray.search.parameters import draw, parameters_of, recall
from fer_ray.search.trial_records import BY_EPOCH, OUTSIDE, TrialRecord


def carried_waiting(
    trial: FrozenTrial, previous: Mapping[str, SearchSpace], spaces: Mapping[str, SearchSpace]
) -> FrozenTrial | None:
    """Return a waiting trial as one of other spaces; None where they can't draw it."""
    key, _, config = recall(trial.system_attrs.get("fixed_params", {}), previous)
    parameters = parameters_of(config, key, spaces)
    if parameters is None:
        return None
    return _trial(TrialState.WAITING, trial, user_attrs=trial.user_attrs, system_attrs={"fixed_params": parameters})


def carried_finished(trial: FrozenTrial, record: TrialRecord, spaces: Mapping[str, SearchSpace]) -> FrozenTrial:
    """Return a finished trial as one of other spaces.

    One that they could have drawn too is theirs with all that is known of it. Any other one becomes a FAIL without
    parameters, which no sampler learns from, and takes its record along.

    Args:
        record: what ``read_record`` made of the trial.
    """
    attributes = {name: value for name, value in trial.user_attrs.items() if name != OUTSIDE}
    parameters = parameters_of(record.config, record.space, spaces)
    if parameters is None:
        return _trial(TrialState.FAIL, trial, user_attrs=attributes | {OUTSIDE: record.outside()})
    fixed = FixedTrial(parameters)
    draw(fixed, spaces)
    return _trial(
        TrialState[record.state],
        trial,
        user_attrs=attributes,
        values=record.values,
        params=fixed.params,
        distributions=fixed.distributions,
        intermediate_values={} if BY_EPOCH in attributes else dict(enumerate(record.by_epoch, start=1)),
    )


def _trial(state: TrialState, like: FrozenTrial, **changes: Any) -> FrozenTrial:
    """Make a trial with the times of another one; what a sampler has noted of that one stays behind."""
    nothing: dict[str, Any] = {name: {} for name in ("params", "distributions", "system_attrs", "intermediate_values")}
    return FrozenTrial(
        number=like.number,
        trial_id=-1,
        state=state,
        value=None,
        datetime_start=like.datetime_start,
        datetime_complete=like.datetime_complete,
        **nothing | changes,
    )
