"""Outputs of every stage: what a failed start leaves, and outputs that are refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
from datasets_made import write_prepared
from scripted_search import Scripted, Search, cost_nothing

from fer_ray.config.files import load_config
from fer_ray.dataset.store import PreparedDataset
from fer_ray.demo import DemoSize, demo
from fer_ray.errors import DataError, FerRayError, UsageError
from fer_ray.evaluate import evaluate
from fer_ray.prepare import prepare
from fer_ray.report import report
from fer_ray.score import score
from fer_ray.storage.output import Output
from fer_ray.train import train
from fer_ray.tune import search, tune
from fer_ray.weights import SHIPPED_CHECKPOINT

pytestmark = pytest.mark.usefixtures("ray_cluster")


def _tune(dataset: PreparedDataset, output: Path) -> None:
    scripted = Search(dataset, output.parent)
    scripted.run = output
    search(scripted.request(1), Scripted([[0.5]], scripted.calls), cost_nothing)


STAGES: dict[str, tuple[Callable[[PreparedDataset, Path], object], str]] = {
    "prepare": (lambda dataset, output: prepare("synthetic:210", output, size=24), "fer_ray.prepare.draw_dataset"),
    "train": (lambda dataset, output: train(dataset.path, load_config(None), output), "fer_ray.train.fit"),
    "tune": (_tune, "fer_ray.tune.run_trials"),
    "evaluate": (
        lambda dataset, output: evaluate(SHIPPED_CHECKPOINT, dataset.path, output),
        "fer_ray.evaluate.load_members",
    ),
    "score": (lambda dataset, output: score(None, [dataset.path / "samples.png"], output), "fer_ray.score._score"),
    "report": (lambda dataset, output: report([dataset.path], output), "fer_ray.report.render_page"),
    "demo": (lambda _, output: demo(output, size=DemoSize(faces=210, image_size=24)), "fer_ray.prepare.draw_dataset"),
}


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "demo"])  # which leaves its commands' outputs
def test_a_start_that_fails_frees_its_output(
    stage: str, tiny_dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise FerRayError("Ray died")

    start, last = STAGES[stage]
    monkeypatch.setattr(last, fail)
    with pytest.raises(FerRayError, match="Ray died"):
        start(tiny_dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_in_use_keeps_its_files(tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    """A call that is refused because the output is in use removes nothing."""
    (tmp_path / "mine.txt").touch()
    for start, _ in STAGES.values():
        with pytest.raises(UsageError, match="in use"):
            start(tiny_dataset, tmp_path)
    assert (tmp_path / "mine.txt").is_file()


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    folder = tmp_path / "in" / "dataset"
    write_prepared(folder, {"train": [0, 1, 2] * 20, "validation": [0, 1, 2] * 4})
    (folder.parent / "link").symlink_to(folder)
    return folder


SPACE = Path(__file__).parents[1] / "search_spaces" / "fast.yaml"
READERS: dict[str, Callable[[Path, Path], object]] = {
    "prepare": lambda dataset, output: prepare(dataset, output),
    "train": lambda dataset, output: train(dataset, load_config(None), output),
    "tune": lambda dataset, output: tune(dataset, [SPACE], output, trials=1),
    "evaluate, its dataset": lambda dataset, output: evaluate(SHIPPED_CHECKPOINT, dataset, output),
    "evaluate, its checkpoint": lambda dataset, output: evaluate([SHIPPED_CHECKPOINT, dataset], dataset, output),
    "report": lambda dataset, output: report([SHIPPED_CHECKPOINT, dataset], output),
    "score, its checkpoint": lambda dataset, output: score(dataset, [SPACE.parent], output),
}


@pytest.mark.parametrize("stage", READERS)
def test_an_output_in_an_input_is_refused(stage: str, inputs: Path) -> None:
    before = sorted(inputs.parent.rglob("*"))
    for output in ("new", "../link/new", "../beside/../dataset/new"):
        with pytest.raises(UsageError, match=r"new: the output is inside the input .*dataset\. Choose an output"):
            READERS[stage](inputs, inputs / output)
    assert sorted(inputs.parent.rglob("*")) == before


def test_relative_paths_of_a_job_are_explained(tmp_path: Path) -> None:
    """`ray job submit --working-dir` runs a job in a copy, whose data would be missing and whose outputs be lost."""
    uploaded = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0123"
    uploaded.mkdir(parents=True)
    with pytest.raises(UsageError, match=r"this output would be lost after the job\. \(This is a job's upload"):
        Output.at(uploaded / "labels").require_usable()
    with pytest.raises(DataError, match=r"no such folder.*Give absolute paths on storage that every node sees"):
        PreparedDataset(uploaded / "fer-data")
    with pytest.raises(DataError) as failure:
        PreparedDataset(tmp_path / "fer-data")
    assert "uploaded" not in str(failure.value)
