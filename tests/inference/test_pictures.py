"""Pictures as people have them in a notebook, and what they give."""

import contextlib
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from encodings_made import ENCODINGS, UNDEFINED
from PIL import Image, UnidentifiedImageError

import fer_ray
from fer_ray.errors import DataError
from fer_ray.images.decode import decode
from fer_ray.inference.predictor import Picture, Predictor, square_greys
from fer_ray.sources.synthetic import synthetic_faces
from fer_ray.weights import SHIPPED_CHECKPOINT

FACE = synthetic_faces(1, seed=0)[0][0]
COLOUR = cv2.cvtColor(cv2.resize(FACE, (90, 70)), cv2.COLOR_GRAY2RGB)


def test_all_kinds_give_what_scoring_gives(tmp_path: Path) -> None:
    data = cv2.imencode(".png", cv2.cvtColor(COLOUR, cv2.COLOR_RGB2BGR))[1].tobytes()
    file = tmp_path / "face.png"
    file.write_bytes(data)
    kinds = [file, str(file), data, Image.fromarray(COLOUR), COLOUR, COLOUR[:, :, 0], COLOUR[:, :, :1]]
    squares = square_greys(kinds, 48)
    assert squares.shape == (7, 48, 48) and squares.dtype == np.uint8
    assert (squares == decode(data, 48).pixels).all()
    for kind in kinds:
        np.testing.assert_array_equal(square_greys(kind, 48), squares[:1])
    assert square_greys([], 48).shape == (0, 48, 48)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(SHIPPED_CHECKPOINT, "flip", "float32")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_encoding_means_the_same_in_whatever_kind(encoding: str, tmp_path: Path, predictor: Predictor) -> None:
    data, array = ENCODINGS[encoding]
    file = tmp_path / "face"
    file.write_bytes(data)
    loaded = Image.open(file)
    loaded.load()
    kinds = [file, data, Image.open(file), Image.open(io.BytesIO(data)), loaded, array, Image.fromarray(array)]
    probabilities = predictor.predict(kinds).probabilities
    np.testing.assert_allclose(probabilities, probabilities[:1].repeat(len(kinds), 0), atol=1e-3)


@pytest.mark.parametrize("encoding", UNDEFINED)
def test_an_undefined_white_is_refused_as_bytes_and_pillow_image(encoding: str) -> None:
    kinds: list[Picture] = [UNDEFINED[encoding]]
    with contextlib.suppress(UnidentifiedImageError):
        kinds.append(Image.open(io.BytesIO(UNDEFINED[encoding])))
    with pytest.raises(DataError) as caught:
        square_greys(kinds, 48)
    assert len(caught.value.problems) == len(kinds)
    assert all("undecodable: " in problem and "save it with 8" in problem for problem in caught.value.problems)


def test_pillow_images_that_are_not_loaded(tmp_path: Path) -> None:
    """A large JPEG is shrunk as from its path; of several frames the shown one counts; a closed image is refused."""
    file = tmp_path / "large.jpg"
    Image.fromarray(COLOUR).resize((700, 500)).save(file, quality=95)
    path, unloaded = square_greys([file, Image.open(file)], 48)
    np.testing.assert_array_equal(path, unloaded)

    first, second = (Image.new("L", (48, 48), shade) for shade in (40, 200))
    frames = io.BytesIO()
    first.save(frames, "TIFF", save_all=True, append_images=[second])
    image = Image.open(frames)
    image.seek(1)
    assert np.abs(square_greys([image], 48).astype(int) - 200).max() < 3

    with Image.open(file) as left:
        pass
    closed = Image.open(file)
    closed.load()
    closed.close()
    with pytest.raises(DataError) as caught:
        square_greys([left, closed], 48)
    assert "closed before loading" in caught.value.problems[0] and "closed image" in caught.value.problems[1]


def test_all_that_give_no_picture_are_named_at_once(tmp_path: Path) -> None:
    cut = Image.open(io.BytesIO(cv2.imencode(".jpg", FACE)[1].tobytes()[:-200]))
    floats = [FACE / 255, (FACE / 255).astype(np.float32), FACE.astype(np.float64)]
    integers = [FACE.astype(np.int64), FACE.astype(np.uint16), COLOUR.astype(np.uint16) * 257]
    shapes: list[Any] = [np.zeros((0, 48), np.uint8), np.dstack([COLOUR, COLOUR]), FACE.ravel(), None, 5]
    with pytest.raises(DataError) as caught:
        square_greys([tmp_path / "gone.jpg", b"no image", FACE, cut, *floats, *integers, *shapes], 48)
    gone, bytes_, pillow, *arrays = caught.value.problems
    assert gone.startswith(f"image 0: {tmp_path}/gone.jpg: missing")
    assert bytes_.startswith("image 1: not_an_image")
    assert pillow.startswith("image 3: truncated: the JPEG has no end marker")
    assert arrays[0].startswith("image 4: float64 of shape (48, 48): expected a path") and len(arrays) == 11
    assert all("astype('uint8')" in one or "save it with 8 bits" in one for one in arrays[:-2])


def test_load(tmp_path: Path) -> None:
    file = tmp_path / "face.png"
    cv2.imwrite(str(file), FACE)
    predictor = fer_ray.load()
    one, same = predictor.predict([file]), predictor.predict(FACE[None])
    np.testing.assert_array_equal(one.probabilities, same.probabilities)
    assert one.names == [fer_ray.emotions.EMOTIONS[one.labels[0]]]
    assert one.confidence[0] == one.probabilities.max() and one.views[0] == 2
    assert one.entropy[0] == pytest.approx(-(one.probabilities * np.log(one.probabilities)).sum(), rel=1e-4)
