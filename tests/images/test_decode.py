"""Decoding: every kind of image gives the right picture, and every kind of damage its own error."""

import contextlib
import itertools
import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from inputs import encoded
from PIL import Image

from fer_ray.images import decode as decoder
from fer_ray.images import decoder_warnings
from fer_ray.images.decode import ImageError, decode, resize
from fer_ray.images.decoder_warnings import quiet_decoders

RNG = np.random.default_rng(0)
RGB = cv2.resize(RNG.integers(0, 256, (8, 10, 3), dtype=np.uint8), (60, 40), interpolation=cv2.INTER_LINEAR)
PICTURE = Image.fromarray(RGB)


def kind_of(data: bytes) -> str:
    with pytest.raises(ImageError) as caught, quiet_decoders():
        decode(data)
    assert caught.value.message
    return caught.value.kind


KINDS = {
    "jpeg": encoded(PICTURE, "JPEG", quality=98, subsampling=0),
    "progressive jpeg": encoded(PICTURE, "JPEG", quality=98, subsampling=0, progressive=True),
    "cmyk jpeg": encoded(PICTURE.convert("CMYK"), "JPEG", quality=98),
    "grey jpeg": encoded(PICTURE.convert("L"), "JPEG", quality=98),
    "png": encoded(PICTURE, "PNG"),
    "bmp": encoded(PICTURE, "BMP"),
    "webp": encoded(PICTURE, "WEBP", lossless=True),
}


@pytest.mark.parametrize(("orientation", "turned"), [(3, 2), (6, 3), (8, 1)])
def test_a_jpeg_is_turned_as_its_exif_says(orientation: int, turned: int) -> None:
    big, exif = PICTURE.resize((600, 400)), Image.Exif()
    exif[0x0112] = orientation
    data = encoded(big, "JPEG", exif=exif, quality=98)
    upright = np.ascontiguousarray(np.rot90(decode(encoded(big, "PNG")).pixels, turned))
    for size, expected in ((None, upright), (16, resize(upright, 16))):
        image = decode(data, size)
        assert (image.height, image.width) == upright.shape
        assert np.abs(image.pixels.astype(int) - expected).mean() < 2


def test_resizing_shrinks_by_area_grows_smoothly_and_keeps_what_fits() -> None:
    fine = np.zeros((96, 96), np.uint8)
    fine[::2] = 200  # stripes that only an average over areas turns into even grey
    assert (decode(encoded(Image.fromarray(fine), "PNG"), 48).pixels == 100).all()
    fitting = RNG.integers(0, 256, (48, 48), dtype=np.uint8)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(fitting), "PNG"), 48).pixels, fitting)
    grown = decode(encoded(Image.fromarray(np.uint8([[0, 250]])), "PNG"), 4).pixels
    assert grown.shape == (4, 4) and (np.diff(grown[0].astype(int)) >= 0).all() and len(set(grown[0].tolist())) > 2


def test_a_large_jpeg_shrunk_while_decoding_looks_like_one_shrunk_afterwards() -> None:
    large = PICTURE.resize((1500, 1000), Image.Resampling.BICUBIC)
    data = encoded(large, "JPEG", quality=95)
    fast, full = decode(data, 48), resize(decode(data).pixels, 48)
    assert (fast.width, fast.height) == (1500, 1000)
    difference = np.abs(fast.pixels.astype(int) - full)
    assert difference.max() <= 6 and difference.mean() < 0.7


@pytest.mark.parametrize("name", KINDS)
def test_truncated_or_with_too_many_pixels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = KINDS[name]
    cuts = [len(data) // 2, len(data) * 9 // 10]
    if name in ("jpeg", "progressive jpeg", "png", "bmp", "webp"):
        cuts.append(len(data) - 1)
    assert {kind_of(data[:cut]) for cut in cuts} == {"truncated"}
    monkeypatch.setattr(decoder, "MAX_PIXELS", 60 * 40)
    assert decode(data).width == 60
    monkeypatch.setattr(decoder, "MAX_PIXELS", 60 * 40 - 1)
    assert kind_of(data) == "too_large"


def test_truncated_behind_a_thumbnail_that_is_whole() -> None:
    thumbnail = KINDS["grey jpeg"]
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    data = KINDS["jpeg"]
    data = data[:2] + segment + data[2:]
    assert decode(data).width == 60
    assert kind_of(data[:-200]) == "truncated"


REPLACEMENTS = [b"", encoded(PICTURE.rotate(90), "JPEG", quality=30)[-202:-2]]
DAMAGED_KINDS = ["jpeg", "progressive jpeg", "grey jpeg", "cmyk jpeg"]


def damaged(name: str, replacement: bytes) -> bytes:
    data, at = KINDS[name], len(KINDS[name]) * 2 // 3
    return data[:at] + replacement + data[at + 200 :]


def test_damage_is_told_of_the_right_image_whatever_other_threads_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_warnings, "_BYTES", 4096)  # so that several files follow each other
    bad = [damaged(name, replacement) for name in DAMAGED_KINDS for replacement in REPLACEMENTS]
    good = [KINDS[name] for name in DAMAGED_KINDS]
    mixed = [data for index in range(30) for data in (*bad[index % 5 :: 5], *good)]

    def kind(data: bytes, size: int | None) -> str:
        with quiet_decoders():
            try:
                decode(data, size)
            except ImageError as error:
                return error.kind
        return "ok"

    with ThreadPoolExecutor(8) as pool, quiet_decoders():
        os.write(2, b"a line of some other library\n" * 1000)
        kinds = list(pool.map(kind, mixed, itertools.cycle((None, None, 4))))
    assert kinds == ["damaged" if data in bad else "ok" for data in mixed]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damage_gives_an_error_or_a_picture(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(decoder, "MAX_PIXELS", 1_000_000)
    with quiet_decoders():
        for data in KINDS.values():
            for _ in range(30):
                broken = bytearray(data)
                for at in RNG.integers(0, len(data), 5):
                    broken[at] = RNG.integers(256)
                with contextlib.suppress(ImageError):
                    assert decode(bytes(broken), 48).pixels.shape == (48, 48)
    assert capfd.readouterr().err == ""
