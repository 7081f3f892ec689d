"""The training loop in plain PyTorch: the same in one process, in a Tune trial and in a Ray Train worker."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fer_ray import models
from fer_ray.config.schema import Config
from fer_ray.emotions import NUM_CLASSES
from fer_ray.errors import DataError, UsageError
from fer_ray.inference.checkpoint import CheckpointInfo, load_checkpoint, load_training_state
from fer_ray.inference.device import LAYOUT, autocast, has_fast_bfloat16, pick_device, resolve_precision, to_device
from fer_ray.inference.network import eval_batch, forward_batches, normalize
from fer_ray.training.augment import Augmentation, Mixing
from fer_ray.training.losses import Loss, Teachers, class_sums, class_weights
from fer_ray.training.optimizers import WeightAverage, make_optimizer
from fer_ray.training.profile import Stopwatch
from fer_ray.training.requirements import batch_problems
from fer_ray.training.rows import TrainingData, TrainingRows
from fer_ray.training.run_folder import Metrics, Report, Snapshot, best_epoch
from fer_ray.training.schedules import image_size, learning_rate_factor, trained_stages
from fer_ray.training.workers import Workers


def fit(
    config: Config,
    data: TrainingData,
    report: Report,
    on_batch: Callable[[int], None] = lambda images: None,
    resume_from: Path | None = None,
) -> None:
    """Train a network and validate after every epoch.

    Under ``torch.distributed`` every process calls this function with its own rows. Gradients are averaged, and
    validation counts every row of every process once.

    Args:
        config: the training configuration. ``training.batch_size`` is the sum over all workers.
        data: this worker's rows.
        report: called after each epoch with its metrics and a snapshot, on every worker.
        on_batch: called after each step with the number of images of this worker's step.
        resume_from: a folder written by ``Snapshot.save(resumable=True)``.

    Raises:
        UsageError: batches too small for the workers, wrong pretrained weights or teachers, or a run that diverges.
        DataError: a file to resume from, of pretrained weights or of a teacher can't be read.
    """
    run = _Run(config, data, resume_from)
    while not run.finished():
        started = time.monotonic()
        learning_rate = run.learning_rate()
        trained = run.train_epoch(on_batch)
        seconds = time.monotonic() - started
        with run.stopwatch.span("validation"):
            validated = run.validate()
        metrics: Metrics = {"epoch": run.epoch + 1, "learning_rate": learning_rate, **trained, **validated}
        metrics["images_per_s"] = run.total_train / seconds
        metrics["seconds"] = time.monotonic() - started
        report(metrics, run.close_epoch(metrics))


class _Run:
    """The state of a training run in one process.

    ``evaluated`` is the network that is validated and saved: with averaged weights if ``training.ema`` is set.
    """

    def __init__(self, config: Config, data: TrainingData, resume_from: Path | None):
        self.config, self.data, self.info = config, data, data.info
        self.device = pick_device()
        self.dtype = resolve_precision(config.training.precision, self.device)
        self.workers = Workers(self.device)
        self.total_train = int(self.workers.sum(np.array([len(data.train)]))[0])
        if problems := batch_problems(config, self.total_train, self.workers.count):
            raise UsageError(problems)
        torch.manual_seed(config.training.seed)
        model = models.build(config.model, self.info.size)
        if resume_from is None:
            models.initialize(model, config.model, self.info.mean, self.info.std)
        self.model = to_device(model, self.device)
        self.stages = [nn.ModuleList(parts) for parts in models.stages(config.model.name, self.model)]
        self.optimizer = make_optimizer(self.stages, config.optimizer, unfreezes=config.schedule.head_epochs > 0)
        self.average = WeightAverage(self.model, config.training.ema) if config.training.ema else None
        self.evaluated = self.average.model if self.average else self.model
        if config.training.compile:
            self.model.compile(mode="reduce-overhead" if self.device.type == "cuda" else None)
        self.train, self.validation = (TrainingRows(split, self.device) for split in (data.train, data.validation))
        # Fewer steps rather than one with fewer than two images per worker.
        most_steps = self.total_train // self.workers.count // 2
        self.steps = min(math.ceil(self.total_train / config.training.batch_size), most_steps)
        counts = self.workers.sum(class_sums(data.train, config.loss.soft_labels))
        self.loss = Loss(config.loss, class_weights(counts, config.loss), self.device)
        teachers = config.loss.teachers
        self.teachers = Teachers(teachers, self.info, self.device, self.dtype) if teachers else None
        self.history: list[Metrics] = []
        self.stopwatch = Stopwatch(self.device)
        if resume_from is not None:
            self._resume(resume_from)

    def _resume(self, folder: Path) -> None:
        state, saved = load_training_state(folder), load_checkpoint(folder).model.state_dict()
        try:
            self.optimizer.load_state_dict(state["optimizer"])
            self.model.load_state_dict(state["weights"] if self.average else saved)
            if self.average:
                self.average.model.load_state_dict(saved)
                self.average.steps = state["average_steps"]
            self.history, self.stopwatch = state["history"], Stopwatch(self.device, state["seconds"])
        except (KeyError, ValueError) as error:
            raise DataError(
                f"{folder}: training state of another version of this program: {error}. Resume with that version, or"
                " train again in another folder."
            ) from error

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self.history)

    def finished(self) -> bool:
        patience = self.config.training.patience
        stale_epochs = self.epoch - best_epoch(self.history)["epoch"] if self.history else 0
        return self.epoch >= self.config.training.epochs or (patience is not None and stale_epochs >= patience)

    def learning_rate(self, step: int = 0) -> float:
        """Return the learning rate at a step of the next epoch."""
        total = self.steps * self.config.training.epochs
        accuracies = [line["validation_accuracy"] for line in self.history]
        factor = learning_rate_factor(self.config.schedule, self.epoch * self.steps + step, total, accuracies)
        return self.config.optimizer.learning_rate * factor

    def train_epoch(self, on_batch: Callable[[int], None]) -> Metrics:
        """Train on every row once, in an order that depends only on the seed, the epoch and the rank."""
        config = self.config
        seed = [config.training.seed, self.epoch, self.workers.rank]  # so a run can resume at any epoch
        seed_of_epoch = int(np.random.SeedSequence(seed).generate_state(1)[0])
        torch.manual_seed(seed_of_epoch)  # dropout
        generator = torch.Generator(self.device).manual_seed(seed_of_epoch)
        progress, full_size = self.epoch / config.training.epochs, self.info.size
        size = image_size(models.first_size(config), config.schedule.full_size_from, progress, full_size)
        augment = Augmentation(config.augment, len(self.train), generator, full_size, size)
        mix = Mixing(config.augment, self.steps, np.random.default_rng(seed_of_epoch))
        parallel, rows = self._unfreeze(), 0
        totals = torch.zeros(2, device=self.device, dtype=torch.float64)
        for step, batch in enumerate(self.stopwatch.steps(self.train.shuffled(generator, self.steps))):
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate(step) * group["scale"]
            with self.stopwatch.phase("augmentation"):
                images = augment(normalize(batch.images, self.info.mean, self.info.std), rows)
                images, targets = mix(images, self.loss.targets(batch), step)
                images = images.contiguous(memory_format=LAYOUT)
            self._step(parallel, images, targets, totals)
            rows += len(images)
            on_batch(len(images))
        loss, hits, rows_seen = self.workers.sum(np.append(totals.cpu().numpy(), rows)).tolist()
        if not math.isfinite(loss):
            raise UsageError(
                f"the training loss is {loss} in epoch {self.epoch + 1}: the run diverged and stops here. Lower"
                f" optimizer.learning_rate, now {config.optimizer.learning_rate:g}."
            )
        return {"train_loss": loss / rows_seen, "train_accuracy": hits / rows_seen}

    def _unfreeze(self) -> nn.Module:
        """Unfreeze the stages that train in this epoch, and return the network whose gradients are averaged."""
        trained = trained_stages(self.config.schedule, self.epoch, len(self.stages))
        self.model.train()
        for number, stage in enumerate(reversed(self.stages)):
            stage.requires_grad_(number < trained)
            if number >= trained:
                stage.eval()  # keeps the batch-norm statistics
        return self.workers.parallel(self.model, trained)

    def _step(self, parallel: nn.Module, images: torch.Tensor, targets: torch.Tensor, totals: torch.Tensor) -> None:
        """Train on a batch, and add its loss and correct predictions, summed over its rows, to the totals."""
        self.optimizer.zero_grad(set_to_none=True)
        count = min(self.config.training.accumulate, len(images) // 2)  # each part has two images or more
        parts = zip(images.tensor_split(count), targets.tensor_split(count), strict=True)
        for number, (part, wanted) in enumerate(parts, start=1):
            with (
                parallel.no_sync()
                if number < count and isinstance(parallel, DistributedDataParallel)
                else nullcontext()
            ):
                with self.stopwatch.phase("forward"):
                    with autocast(self.device, self.dtype):
                        logits = parallel(part).float()
                    teacher_probs = self.teachers.probabilities(part) if self.teachers else None
                    loss = self.loss.loss(logits, wanted, teacher_probs)
                with self.stopwatch.phase("backward"):
                    (loss if count == 1 else loss * (len(part) / len(images))).backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                totals[0].add_(loss, alpha=len(part))
                totals[1].add_((logits.argmax(dim=1) == wanted.argmax(dim=1)).sum())
        with self.stopwatch.phase("optimizer"):
            if self.config.optimizer.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip_norm)
            self.optimizer.step()
            if self.average:
                self.average.update()

    def validate(self) -> Metrics:
        """Measure every validation row once: cross-entropy, accuracy and macro-F1."""
        self.workers.average_buffers(self.model)
        if self.average:
            self.workers.average_buffers(self.average.model)
            self.average.copy_counters()
        self.evaluated.eval()
        table = self.workers.gather(self._validation_table())
        logits, labels = self.validated = table[:, :-1], table[:, -1].astype(np.int64)
        predicted = logits.argmax(axis=1)
        return {
            "validation_loss": F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)).item(),
            "validation_accuracy": float((predicted == labels).mean()),
            "validation_macro_f1": macro_f1(labels, predicted),
            "validation_rows": len(labels),
        }

    def _validation_table(self) -> np.ndarray:
        """Return logits and labels of this worker's validation rows, n × (K + 1)."""
        batches = self.validation.in_order(eval_batch(self.device))
        images = (normalize(batch.images, self.info.mean, self.info.std) for batch in batches)
        logits = [torch.empty(0, NUM_CLASSES, device=self.device)]
        logits += forward_batches(self.evaluated, images, self.device, self.dtype)
        return np.column_stack([torch.cat(logits).cpu().numpy(), self.data.validation.labels])  # copied at once

    def close_epoch(self, metrics: Metrics) -> Snapshot:
        """Append the epoch to the history and return the state after it."""
        self.history.append(metrics)
        info = CheckpointInfo(
            config=self.config,
            mean=self.info.mean,
            std=self.info.std,
            size=self.info.size,
            epoch=self.epoch,
            metrics=metrics,
            dataset_fingerprint=self.info.fingerprint,
        )
        training: dict[str, Any] = {
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "seconds": dict(self.stopwatch.seconds),
        }
        if self.average:
            training |= {"weights": self.model.state_dict(), "average_steps": self.average.steps}
        circumstances = {
            "device": self.device.type,
            "precision": str(self.dtype).removeprefix("torch."),
            "fast_bfloat16": has_fast_bfloat16(self.device),
            "workers": self.workers.count,
            "mapped": self.data.train.is_mapped,
        }
        weights = self.evaluated.state_dict()
        return Snapshot(list(self.history), self.stopwatch, weights, info, training, circumstances, self.validated)


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean of F1 over the classes that have rows, 0 to 1, without scikit-learn's slow import."""
    confusion = np.bincount(labels * NUM_CLASSES + predicted, minlength=NUM_CLASSES**2)
    confusion = confusion.reshape(NUM_CLASSES, NUM_CLASSES)
    support = confusion.sum(axis=1)
    f1 = 2 * confusion.diagonal() / np.maximum(support + confusion.sum(axis=0), 1)
    return float(f1[support > 0].mean())
