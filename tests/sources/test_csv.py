"""CSV of every form: read right, refused with the remedy, or a bad line rejected with a reason."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from inputs import FACE, pixels_text, rows_of, write, zipped

from fer_ray.errors import DataError
from fer_ray.sources.label_names import NameOptions
from fer_ray.sources.recognise import open_source

RNG = np.random.default_rng(0)
FACE_TEXT = " ".join(map(str, FACE.reshape(-1)))
BAD_LINES = {
    "too few pixels": (f"3,{pixels_text(9, 2303)},Training", "2303 pixel values, 2304 expected"),
    "above 255": (f"3,{pixels_text(256)},Training", "256, expected 0 to 255"),
    "beyond 64 bits": (f"3,{pixels_text(2**64 + 1)},Training", "expected 0 to 255"),
    "decimals": (f"3,{pixels_text(9)}.5,Training", "'9.5'"),
    "label 7": (f"7,{FACE_TEXT},Training", "emotion '7', expected 0 to 6"),
    "column missing": (f"3,{FACE_TEXT}", "2 column(s), 3 expected"),
    "header again": ("emotion,pixels,Usage", "'pixels'"),
    "open quotation mark": (f'3,"{FACE_TEXT},Training', "2 column(s), 3 expected"),
    "NUL bytes": (f"3,{pixels_text(9, 2303)}\0 9,Training", "'9\\x00'"),
    "Usage unknown": (f"3,{FACE_TEXT},Holiday", "split 'Holiday'"),
    "binary": ("\x80\xff\x00\x1b", "column(s)"),
}


def test_bad_lines_cost_themselves_only(tmp_path: Path) -> None:
    good = [f"0,{FACE_TEXT},Training", f'happy,"{FACE_TEXT}",training']
    lines = ["emotion,pixels,Usage", good[0], *(line for line, _ in BAD_LINES.values()), good[1]]
    source = write(tmp_path, {"fer2013.csv": "\r\n".join(lines).encode("latin-1")}) / "fer2013.csv"
    rows, images = rows_of(source, options=NameOptions(allow_unknown=True))
    assert [row["id"] for row in rows] == [f"row-{number:07}" for number in range(1, len(lines))]
    assert [(rows[at]["label"], rows[at]["reason"]) for at in (0, -1)] == [(0, None), (3, None)]
    assert all((images[at] == FACE).all() for at in (0, -1))
    for row, (kind, (_, words)) in zip(rows[1:-1], BAD_LINES.items(), strict=True):
        assert words in (row["reason"] or ""), kind


PLAIN = f"emotion,pixels,Usage\n3,{FACE_TEXT},Training\n4,{pixels_text(7)},PublicTest\n"
READABLE: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "byte order mark": ("x.csv", lambda text: b"\xef\xbb\xbf" + text),
    "CRLF": ("x.csv", lambda text: text.replace(b"\n", b"\r\n")),
    "blank lines": ("x.csv", lambda text: text.replace(b"\n", b"\n\n \r\n")),
    "semicolons": ("x.csv", lambda text: text.replace(b",", b";")),
    "tabs": ("x.tsv", lambda text: text.replace(b",", b"\t")),
    "quoted": ("x.csv", lambda text: text.replace(b"emotion,pixels", b'"emotion","pixels"').replace(b"3,", b'"3", ')),
    "names in capitals": ("x.csv", lambda text: text.replace(b"emotion,pixels,Usage", b"EMOTION , Pixels,USAGE")),
    "called otherwise": ("faces.txt", lambda text: text),
    "gzip": ("fer2013.csv.gz", gzip.compress),
    "in a .zip": ("challenge.zip", lambda text: zipped({"fer2013/readme.txt": b"hi", "fer2013/fer2013.csv": text})),
    "in a .zip called .bin": ("x.bin", lambda text: zipped({"a.csv": text})),
}


@pytest.mark.parametrize("kind", READABLE)
def test_csv_files_of_any_make_are_read_right(kind: str, tmp_path: Path) -> None:
    name, change = READABLE[kind]
    folder = write(tmp_path, {name: change(PLAIN.encode())})
    for source in [folder / name] if ".zip" in kind else [folder / name, folder]:
        rows, images = rows_of(source)
        assert [(row["id"], row["split"], row["label"]) for row in rows] == [
            ("row-0000001", "train", 3),
            ("row-0000002", "validation", 4),
        ]
        np.testing.assert_array_equal(images, [FACE, np.full((48, 48), 7)])


UNREADABLE: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "UTF-16": ("x.csv", lambda text: text.decode().encode("utf-16"), "first line is"),
    "empty": ("x.csv", lambda text: b"", "an empty file"),
    "header only": ("x.csv", lambda text: b"emotion,pixels,Usage\r\n", "no data rows"),
    "no pixels column": ("x.csv", lambda text: text.replace(b"pixels", b"image"), "first line is 'emotion,image"),
    "column doubled": ("x.csv", lambda text: text.replace(b"Usage", b" Pixels"), "several columns are called pixels"),
    "a .tar.gz": ("fer2013.tar.gz", lambda text: gzip.compress(bytes(512) + text), "tar xzf"),
    "gzip cut off": ("fer2013.csv.gz", lambda text: gzip.compress(text)[:-20], "can't be read"),
    ".zip cut off": ("x.zip", lambda text: zipped({"fer2013.csv": text})[:-30], "its end is missing"),
    ".zip with no name": ("x.zip", lambda text: zipped({"ä.csv": text}).replace(b"\xc3\xa4", b"\xff\xff"), "again"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_csv_files_that_cannot_be_read_are_refused_with_the_remedy(kind: str, tmp_path: Path) -> None:
    name, change, words = UNREADABLE[kind]
    source = write(tmp_path / "in", {name: change(PLAIN.encode())}) / name
    with pytest.raises(DataError, match=f"(?s)^[^\n]*{name}.*{words}"):
        open_source(source)
    with pytest.raises(DataError, match=name):
        open_source(source, format="csv")


def test_a_packed_csv_that_is_damaged_in_the_middle_is_read_up_to_there(tmp_path: Path) -> None:
    noise = RNG.integers(0, 256, (300, 2304))
    lines = [f"{row % 7},{' '.join(map(str, image))}\n" for row, image in enumerate(noise)]
    data = bytearray(gzip.compress(("emotion,pixels\n" + "".join(lines)).encode(), 1))
    data[-5] ^= 0xFF  # its checksum
    rows, images = rows_of(write(tmp_path, {"x.gz": bytes(data)}) / "x.gz")
    assert [row["reason"] is None for row in rows] == [True] * 300 + [False]
    assert "can't be unpacked" in rows[-1]["reason"]
    np.testing.assert_array_equal(images[:300].reshape(300, -1), noise)


def test_several_csv_files_in_a_folder(tmp_path: Path) -> None:
    names = ("train.csv", "valid.csv", "test.csv")
    write(tmp_path, {name: f"emotion,pixels\n3,{FACE_TEXT}\n".encode() for name in (*names, "a.csv")})
    with pytest.raises(DataError, match=r"side by side are a, test, train, valid, and a means no split"):
        open_source(tmp_path)
    (tmp_path / "a.csv").unlink()
    rows, _ = rows_of(tmp_path)
    assert [(row["split"], row["label"]) for row in rows] == [("train", 3), ("validation", 3), ("test", 3)]
    write(tmp_path, {"fer2013.csv": PLAIN.encode()})
    assert any("Read: fer2013.csv. Not read, though" in note for note in open_source(tmp_path).notes)


def test_a_large_csv_is_cut_at_line_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shades = RNG.integers(0, 256, 50).tolist()
    path = tmp_path / "fer2013.csv"
    path.write_text("emotion,pixels\n" + "".join(f"{row % 7},{pixels_text(s)}\n" for row, s in enumerate(shades)))
    whole = rows_of(path)
    monkeypatch.setattr("fer_ray.sources.csv_files._TASK_BYTES", 20_000)
    assert len(open_source(path).manifest) > 10
    rows, images = rows_of(path)
    assert rows == whole[0] and len(rows) == 50
    assert images[:, 0, 0].tolist() == shades
