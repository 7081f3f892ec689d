"""What the sentences of a model card rest on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_ray.checkpoint_files import INFO_FILE, WEIGHTS_FILE
from fer_ray.data.store import DATASET_FILE, SPLITS, DatasetInfo, PreparedDataset, SplitInfo
from fer_ray.errors import DataError
from fer_ray.json_files import read_json
from fer_ray.learning.checkpoint import CheckpointInfo
from fer_ray.learning.evaluation import Evaluation, Scores, read_evaluation
from fer_ray.learning.intervals import wilson_interval
from fer_ray.local_copies import local_copy
from fer_ray.progress import say

ENOUGH = 20
"""Rows of a class below which nothing is said of it: the 95% interval of a share of them is over 40 points wide."""


@dataclass(frozen=True)
class Evidence:
    """What sentences may rest on.

    Attributes:
        evaluation: the figures.
        dataset: what its dataset holds; None where that is no longer where the evaluation found it.
        trained: of each member in order, how it was trained; None where its checkpoint is gone.
    """

    evaluation: Evaluation
    dataset: DatasetInfo | None
    trained: tuple[CheckpointInfo | None, ...]

    @property
    def members(self) -> Iterator[tuple[str, CheckpointInfo]]:
        """Each member whose checkpoint is there, by what to call it."""
        several = len(self.trained) > 1
        for number, info in enumerate(self.trained, 1):
            if info is not None:
                yield f"Network {number}" if several else "The network", info

    @property
    def measured_where_trained(self) -> bool:
        """Whether every network known of learnt from the dataset it was measured on.

        Only then do that dataset's copies, notes and training rows tell of what the network has seen.
        """
        measured = self.evaluation.dataset_fingerprint
        return all(info is None or info.dataset_fingerprint == measured for info in self.trained)

    @property
    def split(self) -> SplitInfo | None:
        """What the dataset tells of the rows measured; None where the dataset is gone."""
        return self.dataset.splits.get(self.evaluation.split) if self.dataset else None

    @property
    def smallest_support(self) -> int:
        """Rows of the rarest class that has any."""
        return min(one.support for one in self.scores.classes.values() if one.support)

    @property
    def scores(self) -> Scores:
        """Figures on every labelled row under the main TTA."""
        return self.evaluation.main.official


def read_evidence(folder: Path, datasets: Sequence[Path] = ()) -> Evidence:
    """Gather the evidence of an evaluation.

    Args:
        folder: what ``evaluate`` wrote.
        datasets: folders in which to look for its dataset before the one that it names.

    Raises:
        DataError: a file is damaged.
    """
    evaluation = read_evaluation(folder)
    trained = tuple(_read_info(_where(member.checkpoint, (WEIGHTS_FILE,))) for member in evaluation.members)
    return Evidence(evaluation, _find_dataset(evaluation, (*datasets, _where(evaluation.dataset, SPLITS))), trained)


def _where(place: str, leave_out: Sequence[str]) -> Path:
    """Return where something lies, that need not be there any more."""
    try:
        return local_copy(place, leave_out)
    except DataError as error:
        say(str(error))
        return Path(place)


def _find_dataset(evaluation: Evaluation, folders: Sequence[Path]) -> DatasetInfo | None:
    infos = (PreparedDataset(folder).info for folder in folders if (folder / DATASET_FILE).is_file())
    return next((info for info in infos if info.fingerprint == evaluation.dataset_fingerprint), None)


def _read_info(checkpoint: Path) -> CheckpointInfo | None:
    file = checkpoint / INFO_FILE
    return read_json(CheckpointInfo, file, "Remove it, or train again.") if file.is_file() else None


def interval(right: int, rows: int) -> str:
    """Return the 95% interval (Wilson) of a share of rows, such as ``26% to 50%``."""
    low, high = wilson_interval(right, rows)
    return f"{low:.0%} to {high:.0%}"


def majority(scores: Scores) -> tuple[str, float]:
    """Return the label with the most rows, and its share of them."""
    name = max(scores.classes, key=lambda one: scores.classes[one].support)
    return name, scores.classes[name].support / scores.rows
