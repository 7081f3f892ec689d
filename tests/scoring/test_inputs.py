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
from fer_ray.scoring.inputs import check_apart, check_inputs, is_plain_folder, list_entries
from fer_ray.storage.output import Output

CONTENT = b"what is in a face"


def entries(*inputs: Path | str) -> list[Entry]:
    return list(list_entries(check_inputs(inputs), lambda: None))


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
        ("?.*", ["a.jpg", "b.png"]),
        ("2024-*/*.jpg", ["2024-01/c.jpg"]),
        ("2024-0[!1]/**/*.jpg", ["2024-02/deep/e.jpg"]),
        ("2024-0[1-2]", ["2024-01/c.jpg", "2024-02/d.JPG", "2024-02/deep/e.jpg"]),
        ("**/*.jpg", ["a.jpg", "x[1].jpg", "2024-01/c.jpg", "2024-02/deep/e.jpg", "2025/f.jpg"]),
        ("2024-02/**", ["2024-02/d.JPG", "2024-02/deep/e.jpg"]),
        ("x[[]1].jpg", ["x[1].jpg"]),
        ("x[1].jpg", ["x[1].jpg"]),  # a name that is there is itself meant
        ("*.gif", []),
    ],
)
def test_patterns(photos: Path, pattern: str, expected: list[str]) -> None:
    assert names(photos, photos / pattern) == expected


@pytest.fixture
def around(photos: Path) -> Path:
    """Return the folder of ``photos``, with links into it and a job's output in it."""
    root = photos.parent
    (root / "beside").mkdir()
    (photos / "labels").mkdir()
    (photos / "labels" / "part-00000.parquet").touch()
    (root / "link").symlink_to(photos)
    (root / "out-link").symlink_to(photos / "labels")
    (root / "list.txt").write_text("photos/a.jpg\nbeside/../photos/labels/part-00000.parquet\n")
    pq.write_table(pa.table({"path": [str(photos / "labels" / "x.jpg")]}), root / "list.parquet")
    (root / "far" / "deep").mkdir(parents=True)
    (root / "far" / "deep" / "link").symlink_to(photos)
    return root


def takes_in(root: Path, given: str, output: str) -> bool:
    place = given if "://" in given else f"{root}/{given}"
    written = output if "://" in output else os.path.normpath(root / output)
    try:
        check_apart(check_inputs([place]) if "://" not in place else [place], written)
        if "://" not in place:
            list(list_entries([place], lambda: None, written))
    except UsageError as error:
        assert any(remedy in str(error) for remedy in ("Choose an output outside", "Remove it from the list."))
        return True
    return False


@pytest.mark.parametrize(
    ("given", "output"),
    [
        ("photos", "photos/labels"),
        ("photos", "photos/new/labels"),
        ("photos", "photos"),
        ("photos/", "photos/labels"),
        ("beside/../photos", "photos/labels"),
        ("link", "photos/labels"),
        ("photos", "link/labels"),
        ("photos", "out-link"),
        ("far", "photos/labels"),
        ("photos/*", "photos/labels"),
        ("photos/lab*", "photos/labels"),
        ("link/*", "photos/labels"),
        ("*", "photos/labels"),
        ("**/*.parquet", "photos/labels"),
        ("far/*", "photos/labels"),
        ("photos/labels/part-00000.parquet", "photos/labels"),
        ("photos/labels/*.parquet", "photos/labels"),
        ("list.txt", "photos/labels"),
        ("list.parquet", "photos/labels"),
        ("s3://bucket/photos", "s3://bucket/photos/labels"),
        ("s3://bucket/photos/*", "s3://bucket/photos/labels"),
        ("s3://bucket", "s3://bucket/labels"),
    ],
)
def test_an_output_in_an_input_is_refused(around: Path, given: str, output: str) -> None:
    assert takes_in(around, given, output)


@pytest.mark.parametrize(
    ("given", "output"),
    [
        ("photos", "labels"),
        ("photos", "photos-labels"),
        ("photos/2025", "photos/2025-labels"),
        ("photos/2025", "photos/labels"),
        ("photos/*.jpg", "photos/labels"),
        ("photos/**/*.jpg", "photos/labels"),
        ("photos/2024-*", "photos/labels"),
        ("photos/a.jpg", "photos/labels"),
        ("list.txt", "labels"),
        ("list.parquet", "photos/lab"),
        ("s3://bucket/photos", "s3://bucket/photos-labels"),
        ("s3://bucket/photos", "s3://other/photos/labels"),
        ("s3://bucket/photos", "gs://bucket/photos/labels"),
        ("s3://bucket/photos/*.jpg", "s3://bucket/photos/labels"),
    ],
)
def test_an_output_beside_the_inputs_is_not_refused(around: Path, given: str, output: str) -> None:
    assert not takes_in(around, given, output)


def test_relative_inputs_and_outputs_start_at_the_working_directory(
    around: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(around / "photos")
    check_apart(check_inputs(["."]), Output.at("../labels").path_or_url)
    with pytest.raises(UsageError, match="the output is inside the input"):
        check_apart(check_inputs([".."]), Output.at("labels").path_or_url)


def test_an_input_that_several_stand_for_comes_as_often(photos: Path) -> None:
    assert names(photos, photos / "2025", photos / "2025" / "f.jpg", photos / "2025*") == 3 * ["2025/f.jpg"]
    assert is_plain_folder(str(photos)) and not is_plain_folder(str(photos / "*"))


def test_text_lists(photos: Path, tmp_path: Path) -> None:
    lines = tmp_path / "some.txt"
    lines.write_bytes(b"photos/a.jpg\r\n\nphotos/gone.jpg\n%s\nphotos/latin-\xfc.jpg" % os.fsencode(photos / "b.png"))
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


def test_parquet_lists(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "list.parquet"
    pq.write_table(pa.table({"id": [1, 2, 3], "Path": ["photos/a.jpg", None, str(photos / "b.png")]}), file)
    assert names(photos, file) == ["a.jpg", f"{file}!/1", "b.png"]
    pq.write_table(pa.table({"something": [1]}), file)
    (entry,) = entries(file)
    assert entry.problem.startswith("unreadable: can't be listed: none of its columns something is called image")


def make_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("faces/a.jpg", CONTENT)
        archive.writestr("faces/labels.json", "{}")
        archive.writestr("__MACOSX/._a.jpg", b"junk")
        archive.writestr("b", CONTENT)
    return path


def make_tar(path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        for name in ("faces/a.jpg", "faces/a.cls", "b", "grüße.png"):
            member = tarfile.TarInfo(name)
            member.size = len(CONTENT)
            archive.addfile(member, io.BytesIO(CONTENT))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        folder = tarfile.TarInfo("empty")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    return path


def make_parquet(path: Path, images: list[object] | None = None) -> Path:
    pq.write_table(pa.table({"image": images or [CONTENT, None, CONTENT]}), path, row_group_size=2)
    return path


MADE: dict[str, tuple[Callable[[Path], Path], list[str], int]] = {
    "zip": (make_zip, ["faces/a.jpg", "b"], 2),
    "tar": (make_tar, ["faces/a.jpg", "b", "grüße.png", "link.jpg"], 1),
    "parquet": (make_parquet, ["0", "1", "2"], 0),
}


@pytest.mark.parametrize("kind", MADE)
def test_containers_are_listed_and_read_by_place(kind: str, tmp_path: Path) -> None:
    make, expected, others = MADE[kind]
    file = make(tmp_path / f"shard.{kind}")
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
    listed.write_text(f"{file.name}\n")
    assert entries(listed) == entries(tmp_path / "shard.*") == found
    file.unlink()
    with pytest.raises(FileError, match="missing"):
        read_entry(found[0]._replace(container=os.fsencode(file) + b".zip"))


def test_hub_style_parquet(tmp_path: Path) -> None:
    (entry,) = entries(make_parquet(tmp_path / "hub.parquet", [{"bytes": CONTENT, "path": "a.jpg"}]))
    assert read_entry(entry) == CONTENT


@pytest.mark.parametrize("kind", MADE)
def test_a_damaged_container_is_one_row_and_no_end(kind: str, tmp_path: Path) -> None:
    make, expected, _ = MADE[kind]
    good, bad = make(tmp_path / f"good.{kind}"), make(tmp_path / f"bad.{kind}")
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 3])
    found = entries(bad, good)
    assert [entry.name.decode() for entry in found][-len(expected) :] == [f"{good}!/{name}" for name in expected]
    (problem,) = (entry.problem for entry in found if entry.name == os.fsencode(bad))
    assert problem.startswith("unreadable: can't be listed")
    gone = tmp_path / "list.txt"
    gone.write_text(f"gone.{kind}\n")
    assert [entry.problem for entry in entries(gone)] == ["missing: no such file"]


def test_rows_of_a_list_without_a_path_are_inputs_too(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(CONTENT)
    file = tmp_path / "list.parquet"
    pq.write_table(pa.table({"path": ["a.jpg", None, "a.jpg", ""]}), file)
    found = entries(file)
    assert [entry.name.decode() for entry in found] == [
        str(tmp_path / "a.jpg"),
        f"{file}!/1",
        str(tmp_path / "a.jpg"),
        f"{file}!/3",
    ]
    assert [entry.problem.partition(":")[0] for entry in found] == ["", "missing", "", "missing"]


def test_lists_of_other_systems(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_bytes("\ufeffa.jpg\r\nb.jpg\r\n".encode())
    assert [entry.name.decode() for entry in entries(file)] == [str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")]
    file.write_text("a.jpg\n", encoding="utf-16")
    with pytest.raises(DataError, match=r"list.txt: the list is in UTF-16. Save it as UTF-8"):
        entries(file)


def test_containers_below_a_folder_are_files(tmp_path: Path) -> None:
    make_zip(tmp_path / "a.zip")
    assert names(tmp_path, tmp_path) == ["a.zip"]


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ([], UsageError, "no INPUT: name folders"),
        (["http://host/a.jpg"], UsageError, "begins with s3:// or gs://"),
        (["s3:///key"], UsageError, "has no bucket"),
        (["nowhere", "else/where"], DataError, r"nowhere: no such file or folder.*\n.*else/where: no such"),
        (["nowhere/*.jpg"], DataError, "nowhere/.*: no such folder as .*nowhere. Mend the pattern"),
        (["shard.tar.gz"], DataError, "a compressed .tar.*Unpack it"),
        (["shard.tgz"], DataError, "a compressed .tar.*Unpack it"),
    ],
)
def test_bad_inputs(
    given: list[str], kind: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=message):
        check_inputs(given)
