"""Networks as ONNX: the same probabilities without fer_ray, and predictions by int8 models."""

import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from checkpoints_made import made_checkpoint

from fer_ray.cli import main
from fer_ray.dataset.store import PreparedDataset
from fer_ray.emotions import EMOTIONS
from fer_ray.errors import DataError, UsageError
from fer_ray.evaluate import evaluate
from fer_ray.export import INT8_FILE, ONNX_FILE, export
from fer_ray.inference import network
from fer_ray.inference.checkpoint import load_checkpoint, save_checkpoint
from fer_ray.inference.onnx_files import write_onnx
from fer_ray.inference.predictor import Predictor
from fer_ray.models import architectures
from fer_ray.prepare import prepare
from fer_ray.weights import SHIPPED_CHECKPOINT

Exported = tuple[Path, Path]  # a checkpoint and the folder of its export
FACES = np.random.default_rng(0).integers(0, 256, (9, 48, 48), dtype=np.uint8)


@pytest.fixture(scope="module")
def dataset(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    path = tmp_path_factory.mktemp("faces") / "dataset"
    prepare("synthetic:200", path)
    return PreparedDataset(path)


@pytest.fixture(scope="module")
def exported(dataset: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return a checkpoint with an int8 model, and the folder of the export."""
    folder = tmp_path_factory.mktemp("export")
    shutil.copytree(SHIPPED_CHECKPOINT, folder / "checkpoint")
    (folder / "checkpoint" / INT8_FILE).unlink(missing_ok=True)
    export(folder / "checkpoint", folder / "onnx", int8=True, into_checkpoint=True, dataset=dataset.path)
    return folder / "checkpoint", folder / "onnx"


def run(file: Path, images: np.ndarray) -> np.ndarray:
    """Return the probabilities of a model as other programs compute them."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    probabilities: np.ndarray = session.run(None, {"pixels": images})[0]
    return probabilities


def test_other_programs_get_the_checkpoints_probabilities(exported: Exported) -> None:
    checkpoint, folder = exported
    expected = Predictor(checkpoint, precision="float32").predict(FACES).probabilities
    assert np.abs(run(folder / ONNX_FILE, FACES) - expected).max() < 1e-5
    assert run(folder / ONNX_FILE, FACES[:0]).shape == (0, 7)
    session = onnxruntime.InferenceSession(str(folder / INT8_FILE), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["labels"].split(",") == list(EMOTIONS)
    assert "n × 48 × 48" in (folder / "README.md").read_text()
    assert (folder / INT8_FILE).stat().st_size < 1_200_000


def test_int8_gives_what_others_compute(exported: Exported, dataset: PreparedDataset, tmp_path: Path) -> None:
    checkpoint, folder = exported
    predictor = Predictor(checkpoint, precision="int8")
    found = predictor.predict(FACES)
    assert predictor.precision == "int8"
    assert np.abs(found.probabilities - run(folder / INT8_FILE, FACES)).max() < 1e-5
    mirrored = run(folder / INT8_FILE, np.ascontiguousarray(FACES[:, :, ::-1]))
    flip = Predictor(checkpoint, "flip", "int8").predict(FACES).probabilities
    assert np.abs(flip - (found.probabilities + mirrored) / 2).max() < 1e-5
    evaluated = evaluate(checkpoint, dataset.path, tmp_path / "e", precision="int8").evaluation
    assert (evaluated.precision, evaluated.device) == ("int8", "cpu")


@pytest.mark.parametrize(("is_faster", "loss", "chosen"), [(True, 0.0, "int8"), (False, 0.0, ""), (True, 0.01, "")])
def test_auto_is_the_fastest_precision_that_is_as_good(
    is_faster: bool, loss: float, chosen: str, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "_is_int8_faster", lambda *_: is_faster)
    monkeypatch.setattr(network, "_int8_loss", lambda _: loss)
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / "cache"))
    plain = network.choose_precision([made_checkpoint()], "auto")
    assert network.choose_precision([load_checkpoint(exported[0])], "auto") == (chosen or plain)
    assert network.choose_precision([load_checkpoint(exported[0]), made_checkpoint()], "auto") == plain


def test_speeds_are_measured_once(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / "cache"))
    chosen = Predictor(exported[0]).precision
    monkeypatch.setattr(network, "random_images", None)
    assert Predictor(exported[0]).precision == chosen


def test_an_int8_model_of_other_weights_is_refused(exported: Exported, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(exported[0])
    changed = {name: tensor + 1 for name, tensor in checkpoint.model.state_dict().items()}
    save_checkpoint(tmp_path / "c", changed, checkpoint.info)
    with pytest.raises(UsageError, match="no int8 model"):
        Predictor(tmp_path / "c", precision="int8")
    shutil.copy(exported[0] / INT8_FILE, tmp_path / "c")
    with pytest.raises(DataError, match="not of the weights beside it"):
        Predictor(tmp_path / "c")
    (tmp_path / "c" / INT8_FILE).write_bytes(b"junk")
    with pytest.raises(DataError, match="not a readable ONNX model"):
        Predictor(tmp_path / "c", precision="int8")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("--int8", "--int8: needs --dataset"),
        ("--into-checkpoint", "--into-checkpoint: needs --int8"),
        ("--int8 --dataset nowhere", "nowhere"),
    ],
)
def test_wrong_calls(arguments: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["export", str(SHIPPED_CHECKPOINT), "--output", str(tmp_path / "o"), *arguments.split()])
    assert end.value.code in (2, 3) and problem in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "name", ["fast", *(pytest.param(one.name, marks=pytest.mark.slow) for one in architectures() if one.name != "fast")]
)
def test_every_architecture_exports_its_labels_in_csv_order(name: str, tmp_path: Path) -> None:
    checkpoint = made_checkpoint(name, label_names=sorted(EMOTIONS))
    write_onnx(checkpoint, tmp_path / "m.onnx")
    expected = Predictor(checkpoint, precision="float32").predict(FACES).probabilities
    assert np.abs(run(tmp_path / "m.onnx", FACES) - expected).max() < 1e-4
