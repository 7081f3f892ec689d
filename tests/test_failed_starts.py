"""A start that fails leaves its output as it was, whatever the stage and the error."""

from collections.abc import Callable
from pathlib import Path

import pytest
from scripted_search import Scripted, Search, cost_nothing

from fer_ray.config.files import load_config
from fer_ray.dataset.store import PreparedDataset
from fer_ray.demo import DemoSize, demo
from fer_ray.errors import DataError, FerRayError, UsageError
from fer_ray.evaluate import evaluate
from fer_ray.prepare import prepare
from fer_ray.report import report
from fer_ray.score import score
from fer_ray.storage.local import claim_output
from fer_ray.train import train
from fer_ray.tune import search
from fer_ray.weights import SHIPPED_CHECKPOINT

pytestmark = pytest.mark.usefixtures("ray_cluster")


def _tune(dataset: PreparedDataset, output: Path) -> None:
    scripted = Search(dataset, output.parent)
    scripted.run = output
    search(scripted.request(1), Scripted([[0.5]], scripted.calls), cost_nothing)


def _score(dataset: PreparedDataset, output: Path) -> None:
    score(None, [dataset.path / "samples.png"], output)


def _demo(dataset: PreparedDataset, output: Path) -> None:
    demo(output, size=DemoSize(faces=210, image_size=24))


STAGES: dict[str, tuple[Callable[[PreparedDataset, Path], object], str]] = {
    "prepare": (lambda dataset, output: prepare("synthetic:210", output, size=24), "fer_ray.prepare.draw_dataset"),
    "train": (lambda dataset, output: train(dataset.path, load_config(None), output), "fer_ray.train.fit"),
    "tune": (_tune, "fer_ray.tune.run_trials"),
    "evaluate": (
        lambda dataset, output: evaluate(SHIPPED_CHECKPOINT, dataset.path, output),
        "fer_ray.evaluate.load_members",
    ),
    "score": (_score, "fer_ray.score._score"),
    "report": (lambda dataset, output: report([dataset.path], output), "fer_ray.report.render_page"),
    "demo": (_demo, "fer_ray.demo.tune"),
}


@pytest.mark.parametrize("error", [UsageError("config"), DataError("rows"), FerRayError("Ray died"), RuntimeError("?")])
@pytest.mark.parametrize("existed", [False, True], ids=["absent", "empty"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_start_that_fails_frees_its_output(
    stage: str,
    existed: bool,
    error: Exception,
    tiny_dataset: PreparedDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, last = STAGES[stage]
    output, raised = tmp_path / "out", list[Exception]()
    if existed:
        output.mkdir()

    def fail(*arguments: object, **options: object) -> None:
        raised.append(error)
        raise error

    monkeypatch.setattr(last, fail)
    with pytest.raises(type(error)):
        start(tiny_dataset, output)
    assert raised  # the stage reached that function
    assert claim_output(output) == output and output.exists() == existed


def test_an_output_in_use_keeps_its_files(tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    """A call that is refused because the output is in use removes nothing."""
    (tmp_path / "mine.txt").touch()
    for start, _ in STAGES.values():
        with pytest.raises(UsageError, match="in use"):
            start(tiny_dataset, tmp_path)
    assert (tmp_path / "mine.txt").is_file()
