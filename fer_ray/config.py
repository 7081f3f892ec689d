"""The training configuration: frozen pydantic models, read from YAML and changed by ``--set a.b=value``.

A search space is the same file plus a ``search:`` section that maps config paths to distributions.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_serializer, model_validator

from fer_ray.errors import UsageError
from fer_ray.files import local_path

M = TypeVar("M", bound=BaseModel)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelConfig(_Section):
    """Which network."""

    name: str = Field("fast", description="Architecture, one of those that `fer-ray models` lists.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Share of units dropped before the last layers, 0 to 1.")
    pretrained: str | None = Field(
        None,
        min_length=1,
        description="Weights to start from: `imagenet`, or a path to a .safetensors file, a torch state dict or a"
        " checkpoint folder; null: random ones.",
    )
    stem: Literal["auto", "small", "imagenet"] = Field(
        "auto",
        description="First layers of a torchvision network: `small` for small grey images, or `imagenet`, as its"
        " weights were trained; `auto`: `imagenet` where `pretrained` is set.",
    )
    input_size: int | None = Field(
        None,
        ge=32,
        le=1024,
        description="Side in pixels to which images are enlarged before the first layer; null: as they are.",
    )


class AugmentConfig(_Section):
    """Random changes to each training image, drawn anew each epoch. Zero turns one off."""

    rotation: float = Field(10, ge=0, le=180, description="Largest rotation either way, in degrees.")
    zoom: float = Field(0.1, ge=0, lt=1, description="Largest change of scale either way, as a share of the side.")
    shift: float = Field(0.08, ge=0, lt=1, description="Largest shift along each axis, as a share of the side.")
    flip: float = Field(0.5, ge=0, le=1, description="Probability of a left-right mirror image.")
    contrast: float = Field(0.0, ge=0, lt=1, description="Largest change of contrast either way, as a share.")


class OptimizerConfig(_Section):
    """How weights follow gradients."""

    name: Literal["sgd", "adam"] = Field("sgd", description="`sgd` (with Nesterov momentum) or `adam`.")
    learning_rate: float = Field(0.1, gt=0, le=10, description="Peak learning rate at the configured batch size.")
    weight_decay: float = Field(
        5e-4, ge=0, le=1, description="L2 penalty on weight matrices; none on biases and norms."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Nesterov momentum of `sgd`, beta1 of `adam`.")


class ScheduleConfig(_Section):
    """The learning rate over the run."""

    name: Literal["one_cycle", "constant"] = Field(
        "one_cycle", description="`one_cycle` (up, then to 0) or `constant`."
    )
    warmup: float = Field(0.15, ge=0, lt=1, description="Share of all steps in which the rate rises to its peak.")
    first_size: float | None = Field(
        None,
        gt=0.25,
        le=1,
        description="Side of the first epoch's images, as a share of the full side; null: 0.667 where the architecture"
        " takes images of several sizes, else 1.",
    )
    full_size_from: float = Field(
        0.67, gt=0, le=1, description="Share of the epochs after which images have their full side."
    )


class LossConfig(_Section):
    """Cross-entropy and its corrections."""

    label_smoothing: float = Field(0.1, ge=0, lt=1, description="Share of each target spread evenly over all classes.")
    class_weight_power: float = Field(
        0.0, ge=0, le=1, description="Weight classes by inverse frequency to this power: 0 none, 1 full."
    )
    soft_labels: bool = Field(
        False, description="Learn the shares of FER+ votes, of a dataset that was prepared with them, not one label."
    )


class TrainingConfig(_Section):
    """Length, batch, precision and seed of a run."""

    epochs: int = Field(26, ge=1, le=10_000, description="Passes over the training split.")
    batch_size: int = Field(128, ge=2, le=65_536, description="Images a step, over all workers together.")
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of initial weights, shuffling, augmentation and dropout.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="`auto` takes bfloat16 autocast where the device has instructions for it, else float32."
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="Stop after so many epochs without a better validation accuracy; null: never.",
    )


class Config(_Section):
    """Everything that determines a training run, apart from the data."""

    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()


class Distribution(_Section):
    """How one config value is searched; in YAML ``{KIND: [low, high]}`` or ``{categorical: [values]}``."""

    kind: Literal["uniform", "log_uniform", "int", "categorical"]
    values: tuple[Any, ...]

    @model_validator(mode="before")
    @classmethod
    def _from_mapping(cls, raw: Any) -> Any:
        kinds = ("uniform", "log_uniform", "int", "categorical")
        if not (isinstance(raw, dict) and len(raw) == 1 and next(iter(raw)) in kinds):
            raise ValueError(f"must be one of {', '.join(kinds)} with a list, such as {{uniform: [0.0, 0.5]}}")
        kind, values = next(iter(raw.items()))
        if not isinstance(values, list | tuple) or not values:
            raise ValueError(f"{kind} needs a list of values")
        if kind != "categorical":
            values = _range(kind, values)
        return {"kind": kind, "values": tuple(values)}

    @model_serializer
    def _to_mapping(self) -> dict[str, list[Any]]:
        return {self.kind: list(self.values)}


def _range(kind: str, values: Sequence[Any]) -> list[float]:
    number: type = int if kind == "int" else float
    try:
        low, high = (number(value) for value in values)
    except (TypeError, ValueError):
        raise ValueError(f"{kind} needs two numbers [low, high]") from None
    if not low < high:
        raise ValueError(f"{kind} needs low < high, not [{low}, {high}]")
    if kind == "log_uniform" and low <= 0:
        raise ValueError(f"log_uniform needs low > 0, not {low}")
    return [low, high]


class SearchSpace(Config):
    """A training configuration and what ``tune`` may change of it."""

    search: dict[str, Distribution] = Field(default={}, description="Config path, as model.dropout, to distribution.")

    @property
    def defaults(self) -> Config:
        """The configuration without its ``search:`` section."""
        return Config.model_validate(self.model_dump(exclude={"search"}))

    def with_values(self, values: Mapping[str, Any]) -> Config:
        """Return the defaults with the values at the given config paths replaced.

        Raises:
            UsageError: a path that is no field, or a value outside its field's range.
        """
        raw = self.model_dump(exclude={"search"})
        for path, value in values.items():
            _assign(raw, path, value)
        return _validate(Config, raw, "configuration")


def load_config(path: Path | str | None, overrides: Iterable[str] = ()) -> Config:
    """Read a training configuration; a ``search:`` section in the file is checked and left out.

    Args:
        path: a YAML file, or None for the defaults.
        overrides: ``path.to.field=value`` strings, their values read as YAML.

    Raises:
        UsageError: the file is missing or not YAML, or holds unknown keys or values out of range; all at once.
    """
    return load_search_space(path, overrides).defaults


def load_search_space(path: Path | str | None, overrides: Iterable[str] = ()) -> SearchSpace:
    """Read a training configuration with its ``search:`` section; arguments and errors as in ``load_config``."""
    raw = {} if path is None else _read_yaml(local_path(path))
    problems = list[str]()
    for override in overrides:
        key, equals, value = override.partition("=")
        try:
            if not equals:
                raise ValueError("it must read path.to.field=value")
            _assign(raw, key.strip(), yaml.safe_load(value))
        except (ValueError, yaml.YAMLError) as error:
            problems.append(f"--set {override}: {error}")
    source = str(path) if path is not None else "configuration"
    try:
        space = _validate(SearchSpace, raw, source)
        problems += _search_problems(space, source)
    except UsageError as error:
        problems += error.problems
    if problems:
        raise UsageError(problems)
    return space


def to_yaml(config: BaseModel) -> str:
    """Write a configuration or search space as YAML that ``load_config`` reads back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known name, or the empty string where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise UsageError(f"{path}: {what}. Name a YAML configuration, such as search_spaces/fast.yaml.")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not readable as YAML: {error}") from error
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise UsageError(f"{path}: holds {type(raw).__name__}, not a mapping of sections such as `model:`.")
    return raw


def _assign(raw: dict[str, Any], path: str, value: Any) -> None:
    *sections, field = path.split(".")
    for section in sections:
        inner = raw.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ValueError(f"'{section}' in '{path}' is no section")
        raw = inner
    raw[field] = value


def _validate(model: type[M], raw: dict[str, Any], source: str) -> M:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise UsageError([_explain(model, item, source) for item in error.errors()]) from error


def _explain(model: type[BaseModel], item: Any, source: str) -> str:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        fields = _fields_at(model, item["loc"][:-1])
        key = str(item["loc"][-1])
        return f"{source}: unknown key '{path}'.{did_you_mean(key, fields)} Known here: {', '.join(sorted(fields))}."
    message = item["msg"].removeprefix("Value error, ")
    return f"{source}: {path} = {item['input']!r}: {message}."


def _fields_at(model: type[BaseModel], path: Sequence[Any]) -> list[str]:
    for part in path:
        annotation = model.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


def _search_problems(space: SearchSpace, source: str) -> list[str]:
    problems = []
    known = [f"{section}.{field}" for section in Config.model_fields for field in _fields_at(Config, [section])]
    for path, distribution in space.search.items():
        if path not in known:
            problems.append(f"{source}: search.{path}: no such config path.{did_you_mean(path, known)}")
            continue
        for value in distribution.values:
            try:
                space.with_values({path: value})
            except UsageError as error:
                problems += [f"{source}: search.{path} reaches outside its field: {line}" for line in error.problems]
    return problems
