"""Pictures as people have them in a notebook, and what they give."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import fer_ray
from fer_ray.data.images import decode
from fer_ray.data.synthetic import synthetic_faces
from fer_ray.errors import DataError, UsageError
from fer_ray.learning.pictures import square_greys

FACE = synthetic_faces(1, seed=0)[0][0]
COLOUR = cv2.cvtColor(cv2.resize(FACE, (90, 70)), cv2.COLOR_GRAY2RGB)


def test_all_kinds_give_what_scoring_gives(tmp_path: Path) -> None:
    data = cv2.imencode(".png", cv2.cvtColor(COLOUR, cv2.COLOR_RGB2BGR))[1].tobytes()
    file = tmp_path / "face.png"
    file.write_bytes(data)
    kinds = [file, str(file), data, Image.fromarray(COLOUR), COLOUR, COLOUR[:, :, 0]]
    squares = square_greys(kinds, 48)
    assert squares.shape == (6, 48, 48) and squares.dtype == np.uint8
    assert (squares == decode(data, 48).pixels).all()
    for kind in kinds:
        np.testing.assert_array_equal(square_greys(kind, 48), squares[:1])
    assert square_greys([], 48).shape == (0, 48, 48)


def test_all_that_give_no_picture_are_named_at_once(tmp_path: Path) -> None:
    cut = Image.open(io.BytesIO(cv2.imencode(".jpg", FACE)[1].tobytes()[:-200]))
    with pytest.raises(DataError) as caught:
        square_greys([tmp_path / "gone.jpg", b"no image", FACE, FACE / 255, cut], 48)
    gone, bytes_, floats, pillow = caught.value.problems
    assert gone.startswith(f"image 0: {tmp_path}/gone.jpg: missing")
    assert bytes_.startswith("image 1: not_an_image")
    assert floats.startswith("image 3: float64 of shape (48, 48): a path")
    assert pillow.startswith("image 4: image file is truncated")


def test_load(tmp_path: Path) -> None:
    file = tmp_path / "face.png"
    cv2.imwrite(str(file), FACE)
    predictor = fer_ray.load()
    one, same = predictor.predict([file]), predictor.predict(FACE[None])
    np.testing.assert_array_equal(one.probabilities, same.probabilities)
    assert one.names == [fer_ray.emotions.EMOTIONS[one.labels[0]]]
    assert one.confidence[0] == one.probabilities.max() and one.views[0] == 2
    assert one.entropy[0] == pytest.approx(-(one.probabilities * np.log(one.probabilities)).sum(), rel=1e-4)
    with pytest.raises(DataError, match="not a checkpoint"):
        fer_ray.load(tmp_path)
    with pytest.raises(UsageError, match=r"tta twelve: no such .* Known: none, flip"):
        fer_ray.load(tta="twelve")
