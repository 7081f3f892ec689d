"""Drawn faces: reproducible, varied, and told apart by mouth, brows and eyes."""

import numpy as np

from fer_ray.emotions import EMOTIONS
from fer_ray.sources.synthetic import synthetic_faces


def test_a_face_depends_on_its_seed_and_number_alone() -> None:
    images, labels = synthetic_faces(40, seed=1)
    assert images.shape == (40, 48, 48) and images.dtype == np.uint8 and labels.dtype == np.int64
    later, later_labels = synthetic_faces(10, seed=1, start=30)
    np.testing.assert_array_equal(later, images[30:])
    np.testing.assert_array_equal(later_labels, labels[30:])
    assert not np.array_equal(synthetic_faces(40, seed=2)[0], images)
    assert len({image.tobytes() for image in images}) == 40


def test_mouths_show_the_emotion_and_brightness_tells_nothing() -> None:
    images, labels = synthetic_faces(700, seed=4)
    counts = np.bincount(labels, minlength=7)
    assert counts.min() > 70 and counts.max() < 130
    brightness = np.array([images[labels == label].mean() for label in range(7)])
    assert np.ptp(brightness) < images.mean((1, 2)).std() / 2
    means = np.stack([images[labels == label].mean(0) for label in range(7)])
    mouth = means[:, 28:42, 16:32]
    of = {name: mouth[label] for label, name in enumerate(EMOTIONS)}
    corners, middle = np.s_[:5, [0, 1, 14, 15]], np.s_[6:, 6:10]
    assert of["happy"][corners].mean() < of["sad"][corners].mean()  # raised corners darken the upper part
    assert of["surprise"][middle].mean() < of["neutral"][middle].mean() - 10  # the open mouth is dark
