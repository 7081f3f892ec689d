"""What inputs stand for: folders, patterns, lists and containers, and what becomes of bad ones."""

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fer_ray.errors import DataError, UsageError
from fer_ray.images.image_files import FileError
from fer_ray.scoring.containers import Entry, read_entry
from fer_ray.scoring.inputs import check_inputs, list_entries

CONTENT = b"what is in a face"


def entries(*inputs: Path | str) -> list[Entry]:
    return list(list_entries(check_inputs(inputs), lambda: None, "/elsewhere/out"))


def names(root: Path, *inputs: Path | str) -> list[str]:
    return [os.fsdecode(entry.name).removeprefix(f"{root}/") for entry in entries(*inputs)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for name in ("a.jpg", "b.png", "2024-01/c.jpg", "2024-02/d.JPG", "2024-02/deep/e.jpg", "2025/f.jpg", "x[1].jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg", "x[1].jpg"]),
        ("2024-*/*.jpg", ["2024-01/c.jpg"]),
        ("2024-0[!1]/**/*.jpg", ["2024-02/deep/e.jpg"]),
        ("2024-0[1-2]", ["2024-01/c.jpg", "2024-02/d.JPG", "2024-02/deep/e.jpg"]),
        ("**/*.jpg", ["2024-01/c.jpg", "2024-02/deep/e.jpg", "2025/f.jpg", "a.jpg", "x[1].jpg"]),
        ("2024-02/**", ["2024-02/d.JPG", "2024-02/deep/e.jpg"]),
        ("x[[]1].jpg", ["x[1].jpg"]),
        ("x[1].jpg", ["x[1].jpg"]),  # a name that is there is itself meant
    ],
)
def test_patterns(photos: Path, pattern: str, expected: list[str]) -> None:
    assert names(photos, photos / pattern, photos / "2025", photos / "2025*") == [*expected, *2 * ["2025/f.jpg"]]


@pytest.mark.parametrize("given", ["photos", "photos/*", "photos/lab*", "photos/**", "far", "far/*", "out-link/*"])
@pytest.mark.parametrize("output", ["photos/labels", "link/labels"])
def test_the_output_is_no_input(given: str, output: str, photos: Path) -> None:
    root = photos.parent
    (photos / "labels").mkdir()
    (photos / "labels" / "part-000000000-000000001.parquet").touch()
    (root / "link").symlink_to(photos)
    (root / "out-link").symlink_to(photos / "labels")
    (root / "far" / "deep").mkdir(parents=True)
    (root / "far" / "deep" / "link").symlink_to(photos)
    (root / "list.txt").write_text("photos/a.jpg\nfar/../photos/labels/part-000000000-000000001.parquet\n")
    listed = list_entries([str(root / given), str(root / "list.txt")], lambda: None, str(root / output))
    assert not [entry for entry in listed if b"part-" in entry.name]


def test_text_lists(photos: Path, tmp_path: Path) -> None:
    lines = tmp_path / "some.txt"
    lines.write_bytes(
        b"\xef\xbb\xbfphotos/a.jpg\r\n\nphotos/gone.jpg\n%s\nphotos/latin-\xfc.jpg" % os.fsencode(photos / "b.png")
    )
    assert [entry.name for entry in entries(lines)] == [
        os.fsencode(tmp_path) + name
        for name in (b"/photos/a.jpg", b"/photos/gone.jpg", b"/photos/b.png", b"/photos/latin-\xfc.jpg")
    ]
    nul = tmp_path / "nul.lst"
    nul.write_bytes(b"photos/a.jpg\0photos/new\nline.jpg\0")
    assert names(tmp_path, nul) == ["photos/a.jpg", "photos/new\nline.jpg"]
    bad = tmp_path / "bad.txt"
    bad.write_text("http://example.org/a.jpg\nphotos/a.jpg\n")
    wrong, right = entries(bad)
    assert wrong.problem.startswith("missing: http://example.org/a.jpg: unknown kind of URL") and not right.problem
    photo = tmp_path / "photo.txt"
    photo.write_bytes(bytes(100_000))
    assert entries(photo) == []  # NULs only: an empty list
    photo.write_bytes(b"x" * 100_000)
    with pytest.raises(DataError, match=r"a line has more than 65,536 bytes.*Rename"):
        entries(photo)
    photo.write_text("a.jpg\n", encoding="utf-16")
    with pytest.raises(DataError, match=r"the list is in UTF-16. Save it as UTF-8"):
        entries(photo)


def test_parquet_lists(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "list.parquet"
    paths = ["photos/a.jpg", None, str(photos / "b.png"), ""]
    pq.write_table(pa.table({"id": range(4), "Path": paths}), file)
    assert names(photos, file) == ["a.jpg", f"{file}!/1", "b.png", f"{file}!/3"]
    assert [entry.problem.partition(":")[0] for entry in entries(file)] == ["", "missing", "", "missing"]
    pq.write_table(pa.table({"something": [1]}), file)
    (entry,) = entries(file)
    assert entry.problem.startswith("unreadable: can't be listed: none of its columns something is called image")


def make_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("faces/a.jpg", "faces/labels.json", "__MACOSX/._a.jpg", "b"):
            archive.writestr(name, CONTENT)
    return path


def make_tar(path: Path) -> Path:
    kinds = {"link.jpg": tarfile.SYMTYPE, "empty": tarfile.DIRTYPE}
    with tarfile.open(path, "w") as archive:
        for name in ("faces/a.jpg", "faces/a.cls", "b", "grüße.png", *kinds):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kinds.get(name, tarfile.REGTYPE), "/etc/passwd"
            member.size = 0 if name in kinds else len(CONTENT)
            archive.addfile(member, io.BytesIO(CONTENT))
    return path


def make_parquet(path: Path) -> Path:
    pq.write_table(pa.table({"image": [CONTENT, None, CONTENT]}), path, row_group_size=2)
    return path


def make_hub_parquet(path: Path) -> Path:
    pq.write_table(pa.table({"image": [{"bytes": image, "path": "a.jpg"} for image in (CONTENT, None)]}), path)
    return path


MADE: list[tuple[str, Callable[[Path], Path], list[str], int]] = [
    ("zip", make_zip, ["faces/a.jpg", "b"], 2),
    ("tar", make_tar, ["faces/a.jpg", "b", "grüße.png", "link.jpg"], 1),
    ("parquet", make_parquet, ["0", "1", "2"], 0),
    ("parquet", make_hub_parquet, ["0", "1"], 0),
]


@pytest.mark.parametrize(("kind", "make", "expected", "others"), MADE)
def test_containers(kind: str, make: Callable[[Path], Path], expected: list[str], others: int, tmp_path: Path) -> None:
    (tmp_path / ".hidden").mkdir()  # which hides nothing that is named
    file = make(tmp_path / ".hidden" / f"shard.{kind}")
    assert names(file.parent, file.parent) == [file.name]  # below a folder it is a file among others
    on_skipped: list[int] = []
    found = list(list_entries(check_inputs([file]), lambda: on_skipped.append(1)))
    assert [entry.name.decode() for entry in found] == [f"{file}!/{name}" for name in expected]
    assert len(on_skipped) == others
    for entry in reversed(found):  # in any order
        if entry.name.endswith((b"link.jpg", b"!/1")):
            with pytest.raises(FileError, match=r"not_a_file: a link|missing: the row has no image"):
                read_entry(entry)
        else:
            assert read_entry(entry) == CONTENT
    listed = tmp_path / "shards.txt"
    listed.write_text(f".hidden/{file.name}\n")
    assert entries(listed) == entries(file.parent / "shard.*") == found
    with pytest.raises(FileError, match="missing"):
        read_entry(found[0]._replace(container=os.fsencode(file) + b".zip"))
    with pytest.raises(FileError, match=r"^too_large: unpacks to: much$"):
        read_entry(found[0]._replace(problem="too_large: unpacks to: much"))


@pytest.mark.parametrize(("kind", "make", "expected", "others"), MADE[:3])
def test_a_damaged_container_is_one_row_and_no_end(
    kind: str, make: Callable[[Path], Path], expected: list[str], others: int, tmp_path: Path
) -> None:
    good, bad = make(tmp_path / f"good.{kind}"), make(tmp_path / f"bad.{kind}")
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 3])
    found = entries(bad, good)
    assert [entry.name.decode() for entry in found][-len(expected) :] == [f"{good}!/{name}" for name in expected]
    (problem,) = (entry.problem for entry in found if entry.name == os.fsencode(bad))
    assert problem.startswith("unreadable: can't be listed")
    gone = tmp_path / "list.txt"
    gone.write_text(f"gone.{kind}\n")
    assert [entry.problem for entry in entries(gone)] == ["missing: no such file"]


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ([], UsageError, "no INPUT: name folders"),
        (["http://host/a.jpg"], UsageError, "begins with s3:// or gs://"),
        (["s3:///key"], UsageError, "has no bucket"),
        (["nowhere", "else/where"], DataError, r"nowhere: no such file or folder.*\n.*else/where: no such"),
        (["nowhere/*.jpg"], DataError, r"nowhere/\*.jpg: matches no file. Correct the pattern"),
        (["shard.tar.gz"], DataError, "a compressed .tar.*Unpack it"),
    ],
)
def test_bad_inputs(
    given: list[str], kind: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=message):
        check_inputs(given)
