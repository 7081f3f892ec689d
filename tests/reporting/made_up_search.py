"""A search's folder, written by the study itself from a script instead of training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_ray.config.files import SearchSpace
from fer_ray.search.folder import SearchFolder
from fer_ray.search.study import Study

SECONDS = 2.0
"""Of each epoch."""


@dataclass(frozen=True)
class Scripted:
    """A trial: its accuracy in each epoch, and how it ends: ``complete``, ``prune``, ``lose``, or with an error."""

    accuracies: Sequence[float]
    end: str = "complete"


def write_search(folder: Path, spaces: dict[str, SearchSpace], script: Sequence[Scripted]) -> Path:
    """Write ``trials.parquet`` of a search with these trials."""
    folder.mkdir()
    study = Study.create("search", "sqlite:///:memory:", spaces, "fingerprint")
    for trial in script:
        number = study.ask().number
        for epoch, accuracy in enumerate(trial.accuracies, start=1):
            metrics = {"validation_accuracy": accuracy, "validation_macro_f1": accuracy / 2, "seconds": SECONDS}
            study.report(number, {"epoch": float(epoch), **metrics})
        if trial.end in ("complete", "prune"):
            getattr(study, trial.end)(number)
        elif trial.end == "lose":
            study.lose(number, "the node died")
        else:
            study.fail(number, trial.end)
    SearchFolder(folder).write_table(study)
    return folder
