"""Sentences about the rows and the training behind an evaluation's figures; rules as in ``findings``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_ray.console.progress import say
from fer_ray.console.text import amount, points
from fer_ray.dataset.store import DATASET_FILE, DatasetInfo, PreparedDataset, SplitInfo
from fer_ray.errors import DataError
from fer_ray.inference.checkpoint import CheckpointInfo
from fer_ray.inference.scores import Evaluation, Scores, read_evaluation, wilson_interval
from fer_ray.sources.split_names import SPLITS
from fer_ray.storage.inputs import INFO_FILE, WEIGHTS_FILE, local_copy
from fer_ray.storage.json_files import read_json

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


_LEAK_MATTERS = 0.005
_RARE = 0.05
_WIDE = 0.1
_OVERFIT, _UNDERFIT = 0.05, 0.02
_FER2013 = {
    "train": (3995, 436, 4097, 7215, 4830, 3171, 4965),
    "validation": (467, 56, 496, 895, 653, 415, 607),
}
"""Rows by label, csv order, of its Training and PublicTest splits."""
_PEOPLE, _PEOPLE_SPREAD = 0.65, 0.05


def is_fer2013(dataset: DatasetInfo) -> bool:
    """Whether training and validation split have exactly FER-2013's rows of each label."""
    held = {name: tuple(split.labels.values()) for name, split in dataset.splits.items()}
    return all(held.get(name) == counts for name, counts in _FER2013.items())


def no_copies(evidence: Evidence) -> Iterator[str]:
    """No row also stands in the training split, of a dataset that is known to have one."""
    evaluation, dataset = evidence.evaluation, evidence.dataset
    counted = evaluation.split != "train" and dataset is not None and "train" in dataset.splits
    if counted and not evaluation.leaked_rows and evidence.measured_where_trained:
        yield f"None of the {amount(evaluation.rows, 'image')} is an exact copy of a training image."


def copies_matter_little(evidence: Evidence) -> Iterator[str]:
    """Without copies the accuracy is nearly the same."""
    clean = _without_copies(evidence)
    if clean and abs(evidence.scores.accuracy - clean.accuracy) < _LEAK_MATTERS:
        yield (
            f"Images that also stand in the training split ({_copies(evidence)}) flatter little: without them accuracy"
            f" is {clean.accuracy:.1%} instead of {evidence.scores.accuracy:.1%}."
        )


def copies_flatter(evidence: Evidence) -> Iterator[str]:
    """Without copies the accuracy is lower."""
    clean = _without_copies(evidence)
    if clean and evidence.scores.accuracy - clean.accuracy >= _LEAK_MATTERS:
        yield (
            f"Exact copies of training images ({_copies(evidence)}) raise accuracy by"
            f" {points(evidence.scores.accuracy - clean.accuracy)}: without them it is {clean.accuracy:.1%}."
        )


def nothing_but_copies(evidence: Evidence) -> Iterator[str]:
    """All rows are copies."""
    if evidence.measured_where_trained and evidence.evaluation.leaked_rows == evidence.evaluation.rows:
        yield "Every image measured on also stands in the training split: nothing tells of new ones."


def near_copies(evidence: Evidence) -> Iterator[str]:
    """Rows look nearly like training images."""
    split = evidence.split
    if split and split.near_leaked and evidence.measured_where_trained:
        yield (
            f"Beside exact copies, there are images that look nearly like a training image: {split.near_leaked:,} of"
            f" {split.rows:,} ({split.near_leaked / split.rows:.1%}); they count in every figure."
        )


def memorised(evidence: Evidence) -> Iterator[str]:
    """Training accuracy lies far above validation accuracy."""
    for who, train, validation in _gaps(evidence):
        if train - validation >= _OVERFIT:
            yield (
                f"{who} learned its training images better than new ones: in its epoch {train:.1%} of the augmented"
                f" training images were right and {validation:.1%} of the validation images,"
                f" {points(train - validation)} fewer."
            )


def could_learn_more(evidence: Evidence) -> Iterator[str]:
    """Training accuracy is hardly above validation accuracy, and there are mistakes to learn from."""
    for who, train, validation in _gaps(evidence):
        if train - validation < _UNDERFIT and validation < 1:
            yield (
                f"{who} was right on {train:.1%} of the augmented training images and {validation:.1%} of the"
                " validation images: so near to one another, a larger network, weaker augmentation or more epochs may"
                " gain."
            )


def stopped_at_its_best(evidence: Evidence) -> Iterator[str]:
    """The epoch kept is the last one."""
    for who, info in evidence.members:
        if info.epoch == info.config.training.epochs and info.metrics.get("validation_accuracy", 1.0) < 1:
            yield f"{who} was at its best in the last of {info.epoch} epochs; more of them may gain."


def unweighted(evidence: Evidence) -> Iterator[str]:
    """Rare classes fare worse, and the loss doesn't weight them."""
    scores = evidence.scores
    plain = [info is not None and info.config.loss.class_weight_power == 0 for info in evidence.trained]
    known = all(plain) and evidence.smallest_support >= ENOUGH
    if known and scores.accuracy - scores.macro_f1 >= _RARE / 2:
        yield (
            f"Macro-F1 ({scores.macro_f1:.3f}) lies below accuracy ({scores.accuracy:.3f}), and the loss was not"
            " weighted by class (loss.class_weight_power 0): weights may help rare classes at some cost in accuracy."
        )


def rows_that_chose(evidence: Evidence) -> Iterator[str]:
    """The figures are of rows that decided over the network, or trained it."""
    evaluation = evidence.evaluation
    if not evidence.measured_where_trained:
        return
    if evaluation.split == "validation":
        epochs = ", ".join(str(member.epoch) for member in evaluation.members)
        yield (
            f"The validation images measured on also chose the epoch ({epochs}) that was kept, so the figures are a"
            " little high; no test split was measured."
        )
    if evaluation.split == "train":
        yield "The images measured on are those that trained the network."


def other_training_data(evidence: Evidence) -> Iterator[str]:
    """A member was trained on another dataset."""
    for who, info in evidence.members:
        if info.dataset_fingerprint != evidence.evaluation.dataset_fingerprint:
            yield (
                f"{who} was trained on another dataset ({info.dataset_fingerprint[:8]}) than it was measured on"
                f" ({evidence.evaluation.dataset_fingerprint[:8]}): copies of its training images are not known."
            )


def few_rows(evidence: Evidence) -> Iterator[str]:
    """Chance in the choice of rows moves a figure by more than one point, or by ten for a class."""
    scores = evidence.scores
    if scores.accuracy_high - scores.accuracy_low >= _WIDE / 5:
        yield (
            f"With {amount(scores.rows, 'image')} the 95% interval of accuracy goes from {scores.accuracy_low:.1%} to"
            f" {scores.accuracy_high:.1%}: figures measured on other images can differ by as much by chance."
        )
    wide = []
    for name, one in scores.classes.items():
        if one.support:
            low, high = wilson_interval(round(one.recall * one.support), one.support)
            if high - low >= 2 * _WIDE:
                wide.append(f"{name} {low:.0%} to {high:.0%} ({amount(one.support, 'image')})")
    if wide:
        yield f"Recall is known only roughly where images are few, by its 95% interval: {', '.join(wide)}."


def two_labels(evidence: Evidence) -> Iterator[str]:
    """Identical images are under different labels."""
    if listed := _by_split(evidence, "conflicts"):
        yield f"Some images stand under two labels, of which at most one can be right: {listed}."


def flat_images(evidence: Evidence) -> Iterator[str]:
    """Some images show nothing."""
    if listed := _by_split(evidence, "flat"):
        yield f"Images of one flat colour, which show no face, are among the rows: {listed}."


def rare_in_training(evidence: Evidence) -> Iterator[str]:
    """A class is a small share of the training rows."""
    known = evidence.dataset if evidence.measured_where_trained else None
    train = known.splits.get("train") if known else None
    if train is None or not (total := sum(train.labels.values())):
        return
    rare = {name: count for name, count in train.labels.items() if count < _RARE * total}
    if rare:
        listed = ", ".join(f"{name} {count:,} ({count / total:.1%})" for name, count in rare.items())
        yield f"Rare among {amount(total, 'labelled training image')}: {listed}."


def noisy_labels(evidence: Evidence) -> Iterator[str]:
    """The dataset is FER-2013, whose labels people share about 65% of the time (Goodfellow et al. 2013)."""
    if evidence.dataset is None or not is_fer2013(evidence.dataset):
        return
    accuracy = evidence.scores.accuracy
    known = (
        f"People agree with FER-2013's labels about {_PEOPLE:.0%} (± {points(_PEOPLE_SPREAD)}) of the time"
        " (Goodfellow et al. 2013, arXiv 1307.0414)"
    )
    if accuracy > _PEOPLE - _PEOPLE_SPREAD:
        yield (
            f"{known}: at {accuracy:.1%}, what is measured is agreement with these labels, and a higher figure need"
            " not mean that more emotions are recognised."
        )
    else:
        yield f"{known}, {points(_PEOPLE - accuracy)} above this network; label noise doesn't explain its mistakes."


def _without_copies(evidence: Evidence) -> Scores | None:
    """Return the figures without copies of training images, where there are copies, other rows, and both are known."""
    known = evidence.evaluation.leaked_rows and evidence.measured_where_trained
    return evidence.evaluation.main.without_leaked if known else None


def _copies(evidence: Evidence) -> str:
    leaked, rows = evidence.evaluation.leaked_rows, evidence.evaluation.rows
    return f"{leaked:,} of {rows:,}, {leaked / rows:.1%}"


def _by_split(evidence: Evidence, flaw: str) -> str:
    """Return how many rows of each split have a flaw, one of the fields of ``SplitInfo``; empty for none."""
    splits = evidence.dataset.splits if evidence.dataset else {}
    return ", ".join(f"{getattr(held, flaw):,} in {name}" for name, held in splits.items() if getattr(held, flaw))


def _gaps(evidence: Evidence) -> Iterator[tuple[str, float, float]]:
    """Give each member's training and validation accuracy in the epoch kept, where the latter is known to 5 points."""
    for who, info in evidence.members:
        if not {"train_accuracy", "validation_accuracy", "validation_rows"} <= info.metrics.keys():
            continue
        validation, rows = info.metrics["validation_accuracy"], int(info.metrics["validation_rows"])
        low, high = wilson_interval(round(validation * rows), rows)
        if high - low <= 2 * _OVERFIT:
            yield who, info.metrics["train_accuracy"], validation
