"""A search's folder, written by the study itself from a script instead of training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_ray.config.files import SearchSpace
from fer_ray.search.folder import SearchFolder
from fer_ray.search.strategy import Strategy
from fer_ray.search.study import Study

SECONDS = 2.0
"""Of each epoch."""


@dataclass(frozen=True)
class Scripted:
    """A trial: its accuracy in each epoch, its speed, and how it ends: ``complete``, ``prune``, or with an error."""

    accuracies: Sequence[float]
    end: str = "complete"
    images_per_s: float = 1000.0


def write_search(
    folder: Path | None, spaces: dict[str, SearchSpace], script: Sequence[Scripted], *objectives: str
) -> Study:
    """Write a search with these trials, without a folder in memory; ``interrupt`` ends a trial as Ctrl-C does."""
    strategy, database = Strategy(objectives or ("accuracy",), "random", "none"), "sqlite:///:memory:"
    if folder:
        folder.mkdir()
        search = SearchFolder(folder)
        search.begin("search")
        database = search.database
    study = Study.create("search", database, spaces, "fingerprint", strategy)
    for trial in script:
        number = study.ask().number
        for epoch, accuracy in enumerate(trial.accuracies, start=1):
            metrics = {"validation_accuracy": accuracy, "validation_macro_f1": 1 - accuracy, "seconds": SECONDS}
            metrics |= {"inference_images_per_s": trial.images_per_s} if "images_per_s" in objectives else {}
            study.report(number, {"epoch": float(epoch), **metrics})
        if trial.end in ("complete", "prune"):
            getattr(study, trial.end)(number)
        elif trial.end == "interrupt":
            study.interrupt_running()
        else:
            study.fail(number, trial.end)
    return study


def drawn_study(epochs: dict[str, int], trials: int | None = None) -> Study:
    """Return a study in memory over spaces with so many epochs; it has drawn so many trials, one of each by default."""
    spaces, search = dict[str, SearchSpace](), {"model.dropout": {"uniform": [0, 0.6]}}
    for name, count in epochs.items():
        spaces[name] = SearchSpace.model_validate({"training": {"epochs": count}, "search": search})
    study = Study.create("s", "sqlite:///:memory:", spaces, "data", Strategy(sampler="random", scheduler="none"))
    for _ in range(len(epochs) if trials is None else trials):
        study.ask()
    return study
