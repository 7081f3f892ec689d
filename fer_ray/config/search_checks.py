"""What is wrong with a search space, found before anything starts: all at once, and for every candidate."""

from collections.abc import Iterator, Mapping
from typing import Any

from fer_ray.config.paths import path_problem, value_at
from fer_ray.config.search_space import Distribution, Searched, SearchSpace, option_label, overlap, searched_paths
from fer_ray.errors import UsageError


def search_problems(space: SearchSpace, source: str) -> list[str]:
    """Say what is wrong with a ``search:`` section, all at once; nothing where every candidate is a configuration."""
    problems = [*_tree_problems(space, space.search, {}, "search"), *_twice(space.search, "search")]
    if space.search and not problems:
        problems = _candidate_problems(space)
    return [f"{source}: {problem}" for problem in dict.fromkeys(problems)]


def default_problems(space: SearchSpace) -> Iterator[str]:
    """Say where the defaults, which are tried first, are no candidate themselves."""
    yield from _default_problems(space, space.search)


def _tree_problems(space: SearchSpace, search: Searched, outer: Mapping[str, Any], place: str) -> Iterator[str]:
    """Check paths and single values; ``outer`` is what the options around set."""
    for path, distribution in search.items():
        here = f"{place}.{path}"
        wrong = path_problem(space, path)
        if wrong:
            yield f"{here}: {wrong}"
            continue
        if len(set(map(option_label, distribution.values))) < len(distribution.values):
            yield f"{here}: {distribution.kind} names a value twice."
        elif path == "model.name":
            yield f"{here}: architectures are searched by a --space file for each."
        elif distribution.kind == "fixed" and not outer:
            yield (
                f"{here} = {distribution.values[0]!r}: a plain value stands only within an option of a choice. Set it"
                " in its section, or search it, such as {uniform: [0.0, 0.5]}."
            )
        elif distribution.branches:
            for value in distribution.values:
                yield from _option_problems(space, {**outer, path: value}, distribution, value, here)
        else:
            wrong_values = [_value_problems(space, {**outer, path: value}, here) for value in distribution.extremes()]
            yield from next(filter(None, wrong_values), [])


def _option_problems(
    space: SearchSpace, outer: Mapping[str, Any], distribution: Distribution, value: Any, place: str
) -> Iterator[str]:
    label, brought = distribution.branch(value)
    place = f"{place}.choice.{label}"
    fixed = {
        path: one.values[0]
        for path, one in brought.items()
        if one.kind == "fixed" and path_problem(space, path) is None
    }
    wrong = list(_value_problems(space, {**outer, **fixed}, place))
    yield from wrong
    if not wrong:
        yield from _tree_problems(space, brought, {**outer, **fixed}, place)


def _value_problems(space: SearchSpace, values: Mapping[str, Any], place: str) -> list[str]:
    try:
        space.with_values(values)
    except UsageError as error:
        return [f"{place} reaches outside its field: {line.removeprefix('configuration: ')}" for line in error.problems]
    return []


def _twice(search: Searched, place: str) -> Iterator[str]:
    """Find paths that two parts of one candidate would decide."""
    reached = [(path, path) for path in search]
    for path, distribution in search.items():
        reached += [(path, inner) for inner in dict.fromkeys(_distribution_paths(distribution))]
        for label, brought in distribution.branches.items():
            yield from _twice(brought, f"{place}.{path}.choice.{label}")
    for i, (first, path) in enumerate(reached):
        for second, other in reached[i + 1 :]:
            if overlap(path, other) and (first != second or first in (path, other)):
                by = f"{place}.{first} and {place}.{second}" if first != second else f"{place}.{first} and its options"
                yield f"{by} both decide {max(path, other, key=len)}. Leave it to one of them."


def _distribution_paths(distribution: Distribution) -> Iterator[str]:
    for brought in distribution.branches.values():
        yield from searched_paths(brought)


def _candidate_problems(space: SearchSpace) -> list[str]:
    """Try values together, for those that exclude one another."""
    found: dict[str, str] = {}
    for values in space.candidates():
        try:
            space.with_values(values)
        except UsageError as error:
            for line in error.problems:
                section, reason = line.removeprefix("configuration: ").split(" = ", 1)
                drawn = ", ".join(f"{path} = {value!r}" for path, value in values.items() if path.startswith(section))
                found.setdefault(
                    section,
                    f"search: {drawn} may be drawn together: {reason.rpartition('}: ')[2]} Make one of them a choice"
                    " whose options bring the other where it fits.",
                )
    return list(found.values())


def _default_problems(space: SearchSpace, search: Searched) -> Iterator[str]:
    for path, distribution in search.items():
        default = value_at(space, path)
        if not distribution.holds(default):
            range_ = f"{distribution.kind} {list(distribution.values)}"
            yield (
                f"{path} = {default!r}: the default, which is tried first, lies outside its search {range_}."
                " Change one of them."
            )
        elif distribution.branches:
            yield from _default_problems(space, distribution.branch(default)[1])
