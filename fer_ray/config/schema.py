"""The training configuration: frozen pydantic models of its sections."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, field_validator, model_validator

from fer_ray.emotions import EMOTIONS, NUM_CLASSES


class ConfigSection(BaseModel):
    """Base class of the sections of a configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class ModelConfig(ConfigSection):
    """Architecture and initial weights."""

    name: str = Field("fast", description="Architecture; `fer-ray models` lists them.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Probability of dropout before the last layers, 0 to 1.")
    pretrained: str | None = Field(
        None,
        min_length=1,
        description="Initial weights: `imagenet`, a .safetensors or torch file, a checkpoint folder; null: random.",
    )
    stem: Literal["auto", "small", "imagenet"] = Field(
        "auto",
        description="First layers of a torchvision network: `small` for small grey images, `imagenet` as in the"
        " pretrained weights; `auto`: `imagenet` if `pretrained` is set.",
    )
    input_size: int | None = Field(None, ge=32, le=1024, description="Enlarge images to this side in pixels; null: no.")


class AugmentConfig(ConfigSection):
    """Random changes to each training image, drawn anew in each epoch; 0 turns one off."""

    rotation: float = Field(10, ge=0, le=180, description="Largest rotation to either side, in degrees.")
    zoom: float = Field(0.1, ge=0, lt=1, description="Largest change of scale, up or down, as a share of the side.")
    shift: float = Field(0.08, ge=0, lt=1, description="Largest shift along each axis, as a share of the side.")
    flip: float = Field(0.5, ge=0, le=1, description="Probability of a left-right mirror image.")
    contrast: float = Field(0.0, ge=0, lt=1, description="Largest change of contrast, up or down, as a share.")
    brightness: float = Field(0.0, ge=0, le=2, description="Largest change of brightness, in SDs of the pixels.")
    cutout: float = Field(0.0, ge=0, lt=1, description="Side of a grey square somewhere, as a share of the side.")
    mixup: float = Field(0.0, ge=0, le=10, description="Blend pairs of images; alpha of the shares' Beta distribution.")
    cutmix: float = Field(0.0, ge=0, le=10, description="Paste a box of one image into another; alpha as for mixup.")


class OptimizerConfig(ConfigSection):
    """The optimizer and its hyperparameters."""

    name: Literal["sgd", "adam", "adamw"] = Field("sgd", description="`sgd` (with Nesterov momentum), `adam`, `adamw`.")
    learning_rate: float = Field(0.1, gt=0, le=10, description="Peak learning rate at the configured batch size.")
    weight_decay: float = Field(5e-4, ge=0, le=1, description="L2 penalty on weight matrices; decoupled in `adamw`.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Nesterov momentum of `sgd`, beta1 of `adam` and `adamw`.")
    layer_decay: float = Field(1.0, gt=0, le=1, description="Learning rate of a stage, as a share of the next one's.")
    clip_norm: float | None = Field(None, gt=0, description="Most norm of all gradients together; null: no clipping.")


class ScheduleConfig(ConfigSection):
    """The learning rate and the image size over the run."""

    name: Literal["one_cycle", "cosine", "step", "plateau", "constant"] = Field(
        "one_cycle",
        description="`one_cycle` (up, then linearly to 0), `cosine` (up, then along a cosine to 0), `step` (down at"
        " `step_at`), `plateau` (down when validation accuracy stalls) or `constant`.",
    )
    warmup: float = Field(0.15, ge=0, lt=1, description="Share of steps in which `one_cycle` and `cosine` go up.")
    step_at: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.5, 0.75), description="Shares of all steps, 0 to 1, after which `step` lowers the rate."
    )
    plateau_patience: int = Field(3, ge=1, description="Epochs without progress after which `plateau` lowers the rate.")
    decay: float = Field(0.1, gt=0, lt=1, description="Factor by which `step` and `plateau` lower the rate.")
    head_epochs: int = Field(0, ge=0, description="First epochs in which only the classifier is trained.")
    unfreeze_epochs: int = Field(0, ge=0, description="Epochs until one more stage is trained; 0: all stages at once.")
    first_size: float | None = Field(
        None,
        gt=0.25,
        le=1,
        description="Share of the full side in the first epoch; null: 0.667 if the network takes any size, else 1.",
    )
    full_size_from: float = Field(0.67, gt=0, le=1, description="Share of epochs after which images have full size.")

    @model_validator(mode="after")
    def _frozen_first(self) -> Self:
        if self.unfreeze_epochs and not self.head_epochs:
            raise ValueError(
                "unfreeze_epochs does nothing without head_epochs, the epochs in which only the classifier is trained"
            )
        return self


class ClassMultipliers(ConfigSection):
    """Factors on the weights of the classes, in addition to any other weighting; 1 changes nothing."""

    angry: float = Field(1.0, gt=0, le=100, description="Factor on the weight of angry.")
    disgust: float = Field(1.0, gt=0, le=100, description="Factor on the weight of disgust.")
    fear: float = Field(1.0, gt=0, le=100, description="Factor on the weight of fear.")
    happy: float = Field(1.0, gt=0, le=100, description="Factor on the weight of happy.")
    sad: float = Field(1.0, gt=0, le=100, description="Factor on the weight of sad.")
    surprise: float = Field(1.0, gt=0, le=100, description="Factor on the weight of surprise.")
    neutral: float = Field(1.0, gt=0, le=100, description="Factor on the weight of neutral.")


class LossConfig(ConfigSection):
    """Cross-entropy: smoothing, class weights, soft labels and teachers."""

    label_smoothing: float = Field(0.1, ge=0, lt=1, description="Share of each target spread evenly over all classes.")
    class_weight_power: float = Field(0.0, ge=0, le=1, description="Weight classes by inverse frequency to this power.")
    effective_number: float | None = Field(None, gt=0, lt=1, description="Or by effective number: beta, such as 0.999.")
    class_weights: tuple[PositiveFloat, ...] | None = Field(None, description="Or by these weights, in csv order.")
    class_multipliers: ClassMultipliers = Field(default_factory=ClassMultipliers)
    focal_gamma: float = Field(0.0, ge=0, le=10, description="Focal loss: power of (1 - label's probability); 0: off.")
    soft_labels: bool = Field(False, description="Train on the soft labels of the dataset: of FER+ or an audit.")
    teachers: Annotated[tuple[str, ...], BeforeValidator(lambda one: (one,) if isinstance(one, str) else one)] = Field(
        (), description="Checkpoint folders, for distillation from the mean of their calibrated probabilities."
    )
    distill_weight: float = Field(0.9, gt=0, le=1, description="Share of teachers in the loss; the rest is labels'.")

    @field_validator("class_weights")
    @classmethod
    def _one_a_class(cls, weights: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if weights is not None and len(weights) != NUM_CLASSES:
            raise ValueError(f"{len(weights)} weight(s), {NUM_CLASSES} expected: one for each of {', '.join(EMOTIONS)}")
        return weights

    @model_validator(mode="after")
    def _one_weighting(self) -> Self:
        weightings = [self.class_weight_power > 0, self.effective_number is not None, self.class_weights is not None]
        if sum(weightings) > 1:
            raise ValueError("class_weight_power, effective_number and class_weights exclude each other: set one")
        return self


class TrainingConfig(ConfigSection):
    """Length, batch, precision and seed of a run."""

    epochs: int = Field(26, ge=1, le=10_000, description="Passes over the training split.")
    batch_size: int = Field(128, ge=2, le=65_536, description="Images a step, of all workers together.")
    accumulate: int = Field(1, ge=1, le=1024, description="Parts of a batch, computed in turn to save memory.")
    ema: float = Field(0.0, ge=0, lt=1, description="Decay a step of the average of weights that is saved; 0: off.")
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of initial weights, shuffling, augmentation and dropout.")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="`auto`: bfloat16 if fast here.")
    compile: bool = Field(
        False, description="Compile the network by torch.compile, on a GPU with CUDA graphs; needs a C++ compiler."
    )
    patience: int | None = Field(None, ge=1, description="Stop after this many epochs without progress; null: never.")
    max_failures: int = Field(
        2,
        ge=0,
        le=1000,
        description="How often a run of several workers, or a trial of a search, is resumed from its last epoch after"
        " the loss of a process or node.",
    )


class Config(ConfigSection):
    """All settings that determine a training run, apart from the data."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)

    @model_validator(mode="after")
    def _something_learns(self) -> Self:
        if self.schedule.head_epochs >= self.training.epochs and self.model.pretrained is None:
            raise ValueError(
                f"schedule.head_epochs = {self.schedule.head_epochs} of training.epochs = {self.training.epochs}: all"
                " layers but the classifier would stay random. Lower it, or set model.pretrained"
            )
        return self
