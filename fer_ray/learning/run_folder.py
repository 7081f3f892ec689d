"""The folder of a training run: ``config.yaml``, ``metrics.jsonl``, ``checkpoint/`` (best), ``last/`` (to resume)."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fer_ray.config import Config
from fer_ray.config_files import to_yaml
from fer_ray.errors import DataError, FerRayError
from fer_ray.files import make_folder, recover_folder, write_whole
from fer_ray.learning.loop import Metrics, Snapshot

CONFIG_FILE, METRICS_FILE, CURVES_FILE = "config.yaml", "metrics.jsonl", "curves.png"


class RunFolder:
    """Writes and reads a run. Each file and folder is replaced as a whole, so a kill leaves none torn."""

    def __init__(self, path: Path):
        self.path = path
        self.best, self.last = path / "checkpoint", path / "last"
        self.config_file, self.curves_file = path / CONFIG_FILE, path / CURVES_FILE

    def begin(self, config: Config) -> None:
        """Make the folder and note the configuration."""
        make_folder(self.path)
        write_whole(self.config_file, to_yaml(config))

    @contextmanager
    def forgotten_on_failure(self, new: bool) -> Iterator[None]:
        """Remove a new run's folder again where the block fails before its first epoch, so that a mended call starts.

        Args:
            new: False for a run that goes on: its folder stays whatever happens.
        """
        try:
            yield
        except FerRayError:
            if new and self.path.is_dir() and not self.history():
                shutil.rmtree(self.path)
            raise

    def record(self, metrics: Metrics, snapshot: Snapshot) -> None:
        """Write the state after an epoch; a ``Report`` for ``fit``.

        ``metrics.jsonl`` is written last and from the history that ``last/`` holds: whatever the moment of a kill,
        a resumed run lists each epoch once.
        """
        if snapshot.is_best:
            snapshot.save(self.best)
        snapshot.save(self.last, resumable=True)
        lines = [json.dumps(line) for line in snapshot.history]
        write_whole(self.path / METRICS_FILE, "\n".join(lines) + "\n")

    def resumable(self) -> Path | None:
        """Return the folder to resume from, None before the first epoch was finished."""
        recover_folder(self.last)
        return self.last if self.last.is_dir() else None

    def history(self) -> list[Metrics]:
        """Read ``metrics.jsonl``, one entry an epoch; empty before the first.

        Raises:
            DataError: a line is no JSON.
        """
        file = self.path / METRICS_FILE
        if not file.is_file():
            return []
        history: list[Metrics] = []
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                history.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise DataError(f"{file}: line {number}: {error.msg}. Restore it or train again.") from error
        return history


def best_epoch(history: Sequence[Metrics]) -> Metrics:
    """Return the metrics of the epoch whose checkpoint is kept: the first with the highest validation accuracy."""
    return max(history, key=lambda line: line["validation_accuracy"])


def describe_epoch(metrics: Metrics) -> str:
    """Return an epoch's metrics as one line."""
    return (
        f"epoch {metrics['epoch']:.0f}: loss {metrics['train_loss']:.3f}, validation loss"
        f" {metrics['validation_loss']:.3f}, accuracy {metrics['validation_accuracy']:.2%}, macro-F1"
        f" {metrics['validation_macro_f1']:.3f}, {metrics['images_per_s']:,.0f} images/s"
    )
