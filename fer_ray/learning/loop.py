"""The training loop in plain PyTorch. It runs the same in this process, in a Tune trial and in a Ray Train worker."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from fer_ray import models
from fer_ray.config import Config
from fer_ray.emotions import NUM_CLASSES
from fer_ray.errors import UsageError
from fer_ray.learning.augment import augment, normalize
from fer_ray.learning.calibration import fit_temperature
from fer_ray.learning.checkpoint import CheckpointInfo, load_checkpoint, load_training_state, save_checkpoint
from fer_ray.learning.class_weights import class_weights
from fer_ray.learning.device import LAYOUT, autocast, pick_device, place, resolve_precision
from fer_ray.learning.losses import require_soft_labels, soft_cross_entropy
from fer_ray.learning.metrics import classification_metrics, confusion_matrix
from fer_ray.learning.optimizers import image_size, learning_rate_factor, make_optimizer
from fer_ray.learning.predictor import EVAL_BATCH, forward_batches
from fer_ray.learning.rows import Batch, HeldRows, TrainingData

Metrics = dict[str, float]


@dataclass(frozen=True)
class Snapshot:
    """The state of a run after an epoch, valid until the next one begins; written only where somebody wants it.

    Attributes:
        is_best: no earlier epoch had this validation accuracy.
        history: the metrics of every epoch so far, this one last.
    """

    is_best: bool
    history: list[Metrics]
    _weights: dict[str, torch.Tensor]
    _info: CheckpointInfo
    _training: dict[str, Any]

    def save(self, folder: Path, resumable: bool = False) -> None:
        """Write a checkpoint folder, from which ``fit`` can go on where ``resumable``."""
        save_checkpoint(folder, self._weights, self._info, self._training if resumable else None)


Report = Callable[[Metrics, Snapshot], None]


def fit(
    config: Config,
    data: TrainingData,
    report: Report,
    on_batch: Callable[[int], None] = lambda images: None,
    resume_from: Path | None = None,
) -> None:
    """Train a network, validating after every epoch.

    Where ``torch.distributed`` is initialised, every process calls this with its own share of the rows; gradients are
    averaged, and validation counts every row of every share once.

    Args:
        config: the run's configuration; ``training.batch_size`` is over all workers together.
        data: this worker's rows.
        report: called after each epoch with its metrics and a snapshot, on every worker.
        on_batch: called after each step with the images that this worker has just trained on.
        resume_from: a folder written by ``Snapshot.save(resumable=True)``.
    """
    run = _Run(config, data)
    if resume_from is not None:
        run.resume(resume_from)
    while not run.finished():
        started = time.monotonic()
        learning_rate = run.learning_rate()
        trained = run.train_epoch(on_batch)
        seconds = time.monotonic() - started
        metrics: Metrics = {"epoch": run.epoch + 1, "learning_rate": learning_rate, **trained, **run.validate()}
        metrics["images_per_s"] = run.total_train / seconds
        metrics["seconds"] = time.monotonic() - started
        report(metrics, run.close_epoch(metrics))


class _Run:
    """The state of a training run in one process."""

    def __init__(self, config: Config, data: TrainingData):
        require_soft_labels(config, data.info)
        self.config, self.data = config, data
        self.device = pick_device()
        self.dtype = resolve_precision(config.training.precision, self.device)
        self.workers = dist.get_world_size() if dist.is_initialized() else 1
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        torch.manual_seed(config.training.seed)
        model = models.build(config.model, data.info.size)
        self.first_size = models.first_size(config)
        self.model = place(model, self.device)
        self.parallel = DistributedDataParallel(self.model, broadcast_buffers=False) if self.workers > 1 else self.model
        self.optimizer = make_optimizer(self.model, config.optimizer)
        self.train, self.validation = HeldRows(data.train, self.device), HeldRows(data.validation, self.device)
        soft = config.loss.soft_labels
        own = self.train.share_sums if soft else self.train.label_sums
        assert own is not None, "the dataset has soft labels, and so have its splits"
        counts = self._sum(own)
        self.total_train = int(self._sum(np.array([len(self.train)]))[0])
        self.class_weights = torch.tensor(class_weights(counts, config.loss.class_weight_power), device=self.device)
        self.steps = math.ceil(self.total_train / config.training.batch_size)
        self.history: list[Metrics] = []

    @property
    def epoch(self) -> int:
        """Epochs that are finished."""
        return len(self.history)

    def finished(self) -> bool:
        patience = self.config.training.patience
        return self.epoch >= self.config.training.epochs or (patience is not None and self._stale_epochs() >= patience)

    def _stale_epochs(self) -> int:
        """Epochs since the one with the best validation accuracy."""
        accuracies = [line["validation_accuracy"] for line in self.history]
        return len(accuracies) - 1 - accuracies.index(max(accuracies)) if accuracies else 0

    def learning_rate(self, step: int = 0) -> float:
        """The rate at a step of the coming epoch."""
        total = self.steps * self.config.training.epochs
        factor = learning_rate_factor(self.config.schedule, self.epoch * self.steps + step, total)
        return self.config.optimizer.learning_rate * factor

    def train_epoch(self, on_batch: Callable[[int], None]) -> Metrics:
        """Take every row once, in a seeded order that depends only on the seed, the epoch and the rank."""
        seed = int(np.random.SeedSequence([self.config.training.seed, self.epoch, self.rank]).generate_state(1)[0])
        torch.manual_seed(seed)  # dropout
        generator = torch.Generator(self.device).manual_seed(seed)
        progress = self.epoch / self.config.training.epochs
        size = image_size(self.first_size, self.config.schedule.full_size_from, progress, self.data.info.size)
        totals = torch.zeros(3, device=self.device)
        self.parallel.train()
        for step, batch in enumerate(self.train.shuffled(generator, self.steps)):
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate(step)
            totals += self._step(batch, size, generator)
            on_batch(len(batch.labels))
        loss, hits, rows_seen = self._sum(totals.double().cpu().numpy()).tolist()
        if not math.isfinite(loss):
            raise UsageError(
                f"the training loss is {loss} in epoch {self.epoch + 1}: the run diverged and stops here. Lower"
                f" optimizer.learning_rate, now {self.config.optimizer.learning_rate:g}."
            )
        return {"train_loss": loss / rows_seen, "train_accuracy": hits / rows_seen}

    def _step(self, batch: Batch, size: int, generator: torch.Generator) -> torch.Tensor:
        images = normalize(batch.images, self.data.info.mean, self.data.info.std)
        images = augment(images, self.config.augment, generator, size).contiguous(memory_format=LAYOUT)
        with autocast(self.device, self.dtype):
            logits = self.parallel(images)
        smoothing = self.config.loss.label_smoothing
        if self.config.loss.soft_labels:
            assert batch.shares is not None, "the dataset has soft labels, and so have its splits"
            loss = soft_cross_entropy(logits.float(), batch.shares, self.class_weights, smoothing)
        else:
            loss = F.cross_entropy(logits.float(), batch.labels, weight=self.class_weights, label_smoothing=smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        with torch.no_grad():
            hits = (logits.argmax(dim=1) == batch.labels).sum()
            rows = hits.new_tensor(len(batch.labels)).float()
            return torch.stack([loss.detach() * rows, hits.float(), rows])

    def validate(self) -> Metrics:
        """Measure every validation row once: plain cross-entropy, accuracy, macro-F1, and the temperature that fits."""
        if self.workers > 1:
            self._average_buffers()
        self.model.eval()
        table = self._gather(self._validation_table())
        logits, labels = table[:, :-1], table[:, -1].astype(np.int64)
        scores = classification_metrics(confusion_matrix(labels, logits.argmax(axis=1), NUM_CLASSES))
        return {
            "validation_loss": F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)).item(),
            "validation_accuracy": scores.accuracy,
            "validation_macro_f1": scores.macro_f1,
            "validation_rows": len(labels),
            "temperature": fit_temperature(logits, labels),
        }

    def _validation_table(self) -> np.ndarray:
        """Return logits and label of this worker's rows, n × (K + 1)."""
        labels = [np.empty(0, np.int64)]

        def images() -> Iterator[torch.Tensor]:
            for batch in self.validation.in_order(EVAL_BATCH):
                labels.append(batch.labels.cpu().numpy())
                yield normalize(batch.images, self.data.info.mean, self.data.info.std)

        batches = forward_batches(self.model, images(), self.device, self.dtype)
        logits = torch.cat([torch.empty(0, NUM_CLASSES), *(batch.cpu() for batch in batches)])
        return np.column_stack([logits.numpy(), np.concatenate(labels)])

    def close_epoch(self, metrics: Metrics) -> Snapshot:
        """Note the epoch in the history and return the state after it."""
        self.history.append(metrics)
        info = CheckpointInfo(
            config=self.config,
            mean=self.data.info.mean,
            std=self.data.info.std,
            size=self.data.info.size,
            epoch=self.epoch,
            metrics=metrics,
            temperature=metrics["temperature"],
            dataset_fingerprint=self.data.info.fingerprint,
        )
        training = {"optimizer": self.optimizer.state_dict(), "history": self.history}
        return Snapshot(self._stale_epochs() == 0, list(self.history), self.model.state_dict(), info, training)

    def resume(self, folder: Path) -> None:
        state = load_training_state(folder)
        self.model.load_state_dict(load_checkpoint(folder).model.state_dict())
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = state["history"]

    def _sum(self, values: np.ndarray) -> np.ndarray:
        """Add up an array over all workers."""
        if self.workers == 1:
            return values
        tensor = torch.tensor(values, device=self.device)
        dist.all_reduce(tensor)
        return tensor.cpu().numpy()

    def _gather(self, rows: np.ndarray) -> np.ndarray:
        """Put all workers' rows, n × columns, one worker's below another's, as one float64 array on every worker."""
        counts = self._sum(np.eye(self.workers, dtype=np.int64)[self.rank] * len(rows))
        start = counts[: self.rank].sum()
        table = np.zeros((counts.sum(), rows.shape[1]))
        table[start : start + len(rows)] = rows
        return self._sum(table)

    def _average_buffers(self) -> None:
        """Give every worker the mean of all workers' batch-norm statistics."""
        for buffer in self.model.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= self.workers
