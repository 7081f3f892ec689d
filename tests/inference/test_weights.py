"""The network that comes with the package: small, whole, and as good as its model card says."""

import re
import zipfile
from pathlib import Path

from datasets_made import read_split
from safetensors.torch import load_file

from fer_ray.inference.checkpoint import load_checkpoint
from fer_ray.inference.predictor import Predictor
from fer_ray.reporting.model_card import CARD_FILE
from fer_ray.storage.inputs import WEIGHTS_FILE
from fer_ray.weights import SHIPPED_CHECKPOINT


def test_it_is_small_and_loads() -> None:
    file = SHIPPED_CHECKPOINT / WEIGHTS_FILE
    assert file.stat().st_size <= 12_000_000
    kinds = {str(tensor.dtype) for tensor in load_file(file).values() if tensor.is_floating_point()}
    assert kinds == {"torch.float16"}
    load_checkpoint(SHIPPED_CHECKPOINT)


def test_it_is_as_accurate_as_its_card_says(fer2013_zip: Path) -> None:
    card = (SHIPPED_CHECKPOINT / CARD_FILE).read_text(encoding="utf-8")
    (said,) = re.findall(r"^\| flip \|.*?\| (\d\d\.\d\d)%", card, re.MULTILINE)
    with zipfile.ZipFile(fer2013_zip) as archive:
        faces = read_split(archive, "PublicTest")
    predictions = Predictor(SHIPPED_CHECKPOINT, tta="flip").predict(faces.images)
    accuracy = 100 * (predictions.probabilities.argmax(axis=1) == faces.labels).mean()
    assert abs(accuracy - float(said)) < 0.1  # other processors round otherwise
