"""Drawn grey faces whose mouth, brows and eyes show an emotion, so that every stage can run without a download.

Nothing else in an image depends on the emotion: position, size, tilt, shades, light, hair, glasses, noise and blur are
independent. Face number i of a seed is always the same image, whatever the count.
"""

from typing import NamedTuple

import cv2
import numpy as np

from fer_ray.emotions import EMOTIONS, NUM_CLASSES

SIZE = 48
_SCALE = 4  # faces are drawn larger, then shrunk, for smooth edges
_SIDE = SIZE * _SCALE
_SHIFT = 4  # OpenCV's fractional bits of a position

Point = tuple[float, float]


class _Expression(NamedTuple):
    """Shapes, in units of half a face's width."""

    mouth_curve: float  # corners above (positive) or below the middle of the lips
    mouth_open: float  # height of the opening
    mouth_width: float
    brow_lift: float  # of the whole brow
    brow_tilt: float  # inner end above (positive) or below the outer
    eye_open: float
    sneer: float = 0.0  # one corner of the upper lip and the nose drawn up


_EXPRESSIONS = {
    "angry": _Expression(-0.10, 0.00, 0.34, -0.09, -0.20, 0.75),
    "disgust": _Expression(-0.12, 0.07, 0.30, -0.03, -0.08, 0.45, sneer=0.16),
    "fear": _Expression(-0.06, 0.13, 0.42, 0.10, 0.15, 1.45),
    "happy": _Expression(0.22, 0.10, 0.46, 0.02, 0.00, 0.70),
    "sad": _Expression(-0.16, 0.00, 0.32, 0.00, 0.17, 0.60),
    "surprise": _Expression(0.00, 0.30, 0.20, 0.16, 0.00, 1.40),
    "neutral": _Expression(0.00, 0.00, 0.34, 0.00, 0.00, 1.00),
}


def synthetic_faces(count: int, seed: int, start: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw ``count`` faces from number ``start`` on, by a seed of 0 or more.

    Images are uint8, count × 48 × 48, and labels int64, count, csv order, each equally likely.
    """
    images = np.empty((count, SIZE, SIZE), np.uint8)
    labels = np.empty(count, np.int64)
    for row in range(count):
        rng = np.random.default_rng([seed, start + row])
        labels[row] = rng.integers(NUM_CLASSES)
        images[row] = _draw(_EXPRESSIONS[EMOTIONS[labels[row]]], rng)
    return images, labels


class _Pen:
    """Draws on a canvas in face coordinates: the origin between eyes and mouth, x right, y down, 1 = half a width."""

    def __init__(self, canvas: np.ndarray, rng: np.random.Generator):
        self.canvas = canvas
        self.unit = _SIDE * rng.uniform(0.33, 0.43)
        self.angle = rng.uniform(-14, 14)
        self.centre = _SIDE / 2 + rng.uniform(-0.06, 0.06, 2) * _SIDE
        turn = np.deg2rad(self.angle)
        self._turn = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * self.unit

    def _to_canvas(self, points: np.ndarray) -> np.ndarray:
        return np.rint((points @ self._turn.T + self.centre) * (1 << _SHIFT)).astype(np.int32)

    def ellipse(self, centre: Point, radii: Point, shade: float, tilt: float = 0.0) -> None:
        x, y = self._to_canvas(np.array(centre)).tolist()
        axes = [max(1, round(radius * self.unit * (1 << _SHIFT))) for radius in radii]
        angle = self.angle + tilt
        cv2.ellipse(self.canvas, (x, y), axes, angle, 0, 360, shade, cv2.FILLED, cv2.LINE_8, _SHIFT)

    def polygon(self, points: np.ndarray, shade: float) -> None:
        cv2.fillPoly(self.canvas, [self._to_canvas(points)], shade, cv2.LINE_8, _SHIFT)

    def line(self, points: np.ndarray, width: float, shade: float) -> None:
        thickness = max(1, round(width * self.unit))
        cv2.polylines(self.canvas, [self._to_canvas(points)], False, shade, thickness, cv2.LINE_8, _SHIFT)


def _draw(expression: _Expression, rng: np.random.Generator) -> np.ndarray:
    skin = rng.uniform(95, 225)
    dark = skin * rng.uniform(0.2, 0.45)
    canvas = np.full((_SIDE, _SIDE), rng.uniform(10, 245), np.float32)
    pen = _Pen(canvas, rng)
    _draw_head(pen, skin, rng)
    # Strength of the expression, and small differences between people.
    shape = _Expression(*(value * rng.uniform(0.8, 1.2) for value in expression))
    _draw_eyes(pen, shape, skin, dark, rng)
    _draw_nose(pen, shape, skin * 0.72)
    _draw_mouth(pen, shape, skin, dark, rng)
    return _photograph(canvas, rng)


def _draw_head(pen: _Pen, skin: float, rng: np.random.Generator) -> None:
    hair, height = rng.uniform(5, 170), rng.uniform(1.2, 1.4)
    if rng.random() < 0.8:
        pen.ellipse((0, -0.2), (1.12, height + rng.uniform(-0.05, 0.15)), hair)
    if rng.random() < 0.3:  # long hair
        pen.polygon(np.array([[-1.15, 0.0], [1.15, 0.0], [1.2, 2.0], [-1.2, 2.0]]), hair)
    for side in (-1, 1):
        pen.ellipse((side * 0.98, -0.05), (0.14, 0.25), skin * 0.9)
    pen.ellipse((0, 0), (1.0, height), skin)
    if rng.random() < 0.5:  # fringe
        edge = rng.uniform(-0.95, -0.75)
        pen.polygon(np.array([[-0.75, edge], [0.75, edge - 0.05], [0.5, -height - 0.05], [-0.5, -height - 0.05]]), hair)


def _draw_eyes(pen: _Pen, shape: _Expression, skin: float, dark: float, rng: np.random.Generator) -> None:
    apart, white = rng.uniform(0.38, 0.44), min(255.0, skin * rng.uniform(1.2, 1.4))
    glasses, gaze = rng.random() < 0.2, rng.uniform(-0.05, 0.05)
    for side in (-1, 1):
        x, y = side * apart, -0.25
        opening = 0.115 * shape.eye_open
        pen.ellipse((x, y), (0.21, opening + 0.03), dark)
        pen.ellipse((x, y + 0.01), (0.19, opening), white)
        pen.ellipse((x + gaze, y), (0.09, min(0.09, opening)), dark * 0.6)
        brow = y - 0.27 - shape.brow_lift
        inner, outer = brow - shape.brow_tilt / 2, brow + shape.brow_tilt / 2
        ends = np.array([[x - side * 0.22, inner], [x, brow - 0.03], [x + side * 0.25, outer]])
        pen.line(ends, 0.075, dark)
        if glasses:
            turn = np.linspace(0, 2 * np.pi, 25)
            pen.line(np.stack([x + 0.31 * np.cos(turn), y + 0.27 * np.sin(turn)], 1), 0.04, dark * 0.5)
    if glasses:
        pen.line(np.array([[-apart + 0.31, -0.27], [apart - 0.31, -0.27]]), 0.04, dark * 0.5)


def _draw_nose(pen: _Pen, shape: _Expression, shade: float) -> None:
    tip = 0.18 - shape.sneer / 2
    pen.line(np.array([[0.0, -0.1], [-0.1, tip], [0.1, tip + 0.02]]), 0.04, shade)
    if shape.sneer:  # wrinkles beside the nose
        for side in (-1, 1):
            pen.line(np.array([[side * 0.12, -0.05], [side * 0.3, 0.2]]), 0.045, shade)


def _draw_mouth(pen: _Pen, shape: _Expression, skin: float, dark: float, rng: np.random.Generator) -> None:
    x = np.linspace(-1, 1, 17)
    middle, lifted = rng.uniform(0.53, 0.62), rng.choice((-1, 1))
    line = middle + shape.mouth_curve * (0.5 - x**2) - shape.sneer * np.clip(x * lifted, 0, 1)
    opening = shape.mouth_open * np.sqrt(np.clip(1 - x**2, 0, 1))
    width = x * shape.mouth_width
    upper, lower = np.stack([width, line - opening * 0.6], 1), np.stack([width, line + opening], 1)
    outline = np.concatenate([upper, lower[::-1]])
    if shape.mouth_open:
        pen.polygon(outline, dark * 0.5)
        if shape.mouth_curve > 0:  # teeth
            edge = upper + np.array([0, shape.mouth_open * 0.6])
            pen.polygon(np.concatenate([upper, edge[::-1]]), min(255.0, skin * 1.35))
    pen.line(np.concatenate([outline, outline[:1]]), 0.065, dark)


def _photograph(canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shrink to the final size and add slanted light, blur and noise."""
    image: np.ndarray = cv2.resize(canvas, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    slope = np.linspace(-0.5, 0.5, SIZE, dtype=np.float32)
    strength, direction = rng.uniform(0, 0.45), rng.uniform(0, 2 * np.pi)
    light = np.cos(direction) * slope[None] + np.sin(direction) * slope[:, None]
    image = image * (1 + strength * light)
    blur = rng.uniform(0, 0.8)
    if blur > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    image = image + rng.standard_normal((SIZE, SIZE), np.float32) * np.float32(rng.uniform(1, 7))
    grey: np.ndarray = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return grey
