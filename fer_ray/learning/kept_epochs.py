"""The best and the last epoch of a run as checkpoint folders, whole whatever the moment of a kill."""

from collections.abc import Sequence
from pathlib import Path

from fer_ray.files import recover_folder, remove_leftovers
from fer_ray.learning.checkpoint import copy_checkpoint, load_checkpoint, load_training_state
from fer_ray.learning.loop import Metrics, Snapshot
from fer_ray.outputs import Output


class KeptEpochs:
    """Writes and reads both. ``last`` comes first and is the truth, from which ``catch_up`` makes ``best`` again.

    Args:
        output: in which both are; of a URL another process begins with its ``fetch``.
        best: the name of the best epoch's folder there.
        metric: by which an epoch is best; more is better.
    """

    def __init__(self, output: Output | Path, best: str, metric: str):
        self.output = Output.at(output)
        self._best, self._metric = best, metric

    @property
    def best(self) -> Path:
        """The best epoch's checkpoint, which only predicts."""
        return self.output.path / self._best

    @property
    def last(self) -> Path:
        """The last epoch's, from which ``fit`` goes on."""
        return self.output.path / "last"

    def record(self, metrics: Metrics, snapshot: Snapshot) -> None:
        """Write the state after an epoch; a ``Report`` for ``fit``.

        Raises:
            OSError, UsageError: the disk refuses; the state after the epoch before is whole.
        """
        snapshot.save(self.last, resumable=True)
        self._follow(snapshot.history)
        self.output.save()

    def catch_up(self) -> list[Metrics]:
        """Finish a ``record`` that a kill cut off, and return the metrics of each epoch so far.

        Raises:
            DataError: ``last`` is damaged.
            OSError, UsageError: the disk refuses.
        """
        remove_leftovers(self.best)
        remove_leftovers(self.last)
        if not self.last.is_dir():
            return []
        history: list[Metrics] = load_training_state(self.last)["history"]
        load_checkpoint(self.last)  # damaged, it must not take the place of a best one that is whole
        self._follow(history)
        return history

    def resumable(self) -> Path | None:
        """Return the folder to resume from, None before the first epoch was finished."""
        recover_folder(self.last)
        return self.last if self.last.is_dir() else None

    def _follow(self, history: Sequence[Metrics]) -> None:
        """Let the rest follow ``last``."""
        if best_epoch(history, self._metric)["epoch"] == history[-1]["epoch"]:
            copy_checkpoint(self.last, self.best)


def best_epoch(history: Sequence[Metrics], metric: str = "validation_accuracy") -> Metrics:
    """Return the metrics of the epoch whose checkpoint is kept: the first with the highest value of a metric."""
    return max(history, key=lambda line: line[metric])
