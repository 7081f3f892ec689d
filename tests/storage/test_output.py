"""Outputs and copies of inputs, on this machine and in an object store, whole whenever a writer is killed."""

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from object_store import BUCKET, Store, running_store
from pyarrow import fs

from fer_ray.errors import DataError, FerRayError, UsageError
from fer_ray.storage import object_store
from fer_ray.storage.inputs import cache_folder, local_copy
from fer_ray.storage.local import LOCK_FILE
from fer_ray.storage.object_store import require_apart
from fer_ray.storage.output import Output, open_output

Files = dict[str, str]


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with running_store() as running:
        yield running


@pytest.fixture
def url(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """Return a prefix of its own for each test, whose copies are in the test's folder."""
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / "cache"))
    yield f"s3://{BUCKET}/{request.node.name.replace('[', '-').replace(']', '')}"
    store.faults.writes_left = None


@pytest.fixture(params=["path", pytest.param("url", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "path" else request.getfixturevalue("url")


def below(folder: Path) -> Files:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def visible(path_or_url: str) -> Files:
    """What a reader of the output sees."""
    return below(local_copy(path_or_url))


def write(folder: Path, files: Files) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def save(output: Output, files: Files) -> None:
    write(output.path, files)
    output.save(*dict.fromkeys(name.split("/")[0] for name in files))


def test_files_by_name(place: str) -> None:
    output = Output.at(place)
    assert output.names() == output.folders() == []
    output.write("a.json", "{}")
    output.write("below/b.bin", b"\0")
    assert (output.names(), output.within("below").names(), output.folders()) == (["a.json"], ["b.bin"], ["below"])
    assert output.exists("a.json") and not output.exists("below") and output.read("below/b.bin") == b"\0"
    output.write("a.json", "[]")
    assert output.read("a.json") == b"[]"
    with pytest.raises(OSError):
        output.read("absent")
    with output.writing("big") as path:
        path.write_text("whole")
        assert not output.exists("big")
    with pytest.raises(RuntimeError), output.writing("half") as path:
        path.write_text("half")
        raise RuntimeError
    with output.writing("none"):
        pass
    assert output.read("big") == b"whole" and output.names() == ["a.json", "big"]
    output.remove("a.json", "absent")
    output.within("below").clear()
    output.within("absent").clear()
    assert (output.names(), output.folders()) == (["big"], [])


def test_an_output_is_saved_and_resumed(place: str) -> None:
    with open_output(place) as output:
        assert output.path_or_url == str(output.file()) == place and below(output.path) == {}
        output.path.mkdir(parents=True, exist_ok=True)
        save(output, {"a": "1", "last/b": "2", "best/c": "3"})
    assert visible(place) == {"a": "1", "last/b": "2", "best/c": "3"}
    with open_output(place + "/", resume=True) as output:
        output.fetch()
        assert below(output.path) == {"a": "1", "last/b": "2", "best/c": "3"}
        save(output, {"best/d": "4"})
        (output.path / "last" / "b").unlink()
        (output.path / "last").rmdir()
        output.save("last")
    assert visible(place) == {"a": "1", "best/c": "3", "best/d": "4"}
    assert visible(f"{place}/best") == {"c": "3", "d": "4"}


@pytest.mark.slow
def test_working_copies_of_a_url(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError), open_output(url) as output:
        write(output.path, {"a": "1"})
        path = output.path
        raise KeyError
    assert visible(url) == {} and not path.exists()  # what wasn't saved
    with open_output(url) as output:
        save(output, {"a": "1", "last/b": "2"})
        own, there = output.path, pickle.loads(pickle.dumps(output))
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 1)  # as in another process
            there.fetch("a")
            assert there.path != own and below(there.path) == {"a": "1"}


def saved_up_to(store: Store, writes: int, act: Callable[[], None]) -> bool:
    """Call a function, have the store deny all but the first writes, and return whether the function has ended well."""
    store.faults.writes_left = writes
    try:
        act()
        return True
    except FerRayError as error:
        assert "the object store refused the request: " in str(error)
        return False
    finally:
        store.faults.writes_left = None


@pytest.mark.slow
@pytest.mark.parametrize("is_new", [True, False])
def test_a_kill_during_a_save_leaves_whole_folders(store: Store, url: str, is_new: bool) -> None:
    """Readers, a resumed stage and the next save see the previous folder or the new one, and no mixture of both."""
    previous, new = {"last/a": "1", "last/gone": "1"}, {"last/a": "2", "last/b": "2"}
    has_ended, outcomes = False, list[Files]()
    while not has_ended:
        here = f"{url}/{len(outcomes)}"
        with open_output(here, is_resumable=lambda output: True) as output:
            if not is_new:
                save(output, previous)
                (output.path / "last" / "gone").unlink()
            has_ended = saved_up_to(store, len(outcomes), lambda: save(output, new))
        outcomes.append(visible(here))
        with open_output(here, resume=bool(outcomes[-1])) as output:
            output.fetch()
            assert below(output.path) == outcomes[-1]
            save(output, {"last/a": "3"})
            save(output, {"last/a": "4"})
        assert visible(here) == outcomes[-1] | {"last/a": "4"}
        keys = store.keys(here.removeprefix(f"s3://{BUCKET}/"))
        assert len(keys) == len(visible(here)) + 1  # nothing of earlier folders
    first = {} if is_new else previous
    assert [one for one in outcomes if one not in (first, new)] == []
    assert outcomes[0] == first and outcomes[-1] == new and outcomes.count(first) > 5


@pytest.mark.slow
def test_a_kill_during_the_upload_of_a_new_output_leaves_none(store: Store, url: str) -> None:
    files = {"dataset.json": "{}", "train/part-0": "1", "train/part-1": "1"}

    def upload() -> None:
        with Output.at(here).whole() as folder:
            write(folder, files)

    has_ended, step = False, 0
    while not has_ended:
        here = f"{url}/{step}"
        has_ended = saved_up_to(store, step, upload)
        seen = visible(here)
        assert seen in (files, {}) and (seen == files or not has_ended)
        if not seen:
            with open_output(here) as output, output.whole() as folder:
                write(folder, {"a": "2"})
            assert visible(here) == {"a": "2"}
        step += 1
    assert step > 9


@pytest.mark.slow
def test_a_reader_retries_while_a_folder_is_replaced(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_output(url) as output:
        save(output, {"last/a": "1"})
        copy = fs.copy_files

        def replace_first(*arguments: object) -> None:
            monkeypatch.setattr(fs, "copy_files", copy)
            save(output, {"last/a": "2"})
            copy(*arguments)

        monkeypatch.setattr(fs, "copy_files", replace_first)
        assert visible(url) == {"last/a": "2"} and fs.copy_files is copy


def test_free_and_in_use(place: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{place}: nothing to resume"), open_output(place, resume=True):
        pass
    Output.at(place).write("x", b"")
    with pytest.raises(UsageError, match=f"{place}: the output is in use"), open_output(place):
        pass
    with (
        open_output(place, resume=True) as output,
        pytest.raises(UsageError, match="another process is writing there"),
        open_output(output, resume=True),
    ):
        pass
    with pytest.raises(UsageError, match="unknown kind of URL"):
        Output.at("hdfs://host/out")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file: is a file"), open_output(tmp_path / "file"):
        pass


@pytest.mark.parametrize("existed", [False, True])
@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_a_start_that_fails_leaves_the_output_as_it_was(place: str, existed: bool, kind: type[BaseException]) -> None:
    output = Output.at(place)
    if existed:
        output.path.mkdir(parents=True)
        (output.path / LOCK_FILE).touch()  # of a failed call
    with pytest.raises(kind), open_output(place):
        output.write("below/config.yaml", b"")
        output.write(".partial", b"")
        raise kind
    assert output.names() == output.folders() == [] and output.path.exists() == (existed and not output.is_remote)
    with pytest.raises(kind), open_output(place, is_resumable=lambda output: True):
        output.write("epoch", b"")
        raise kind
    with pytest.raises(kind), open_output(place, resume=True):
        raise kind
    assert output.exists("epoch")  # what can be resumed is kept


def test_outputs_beside_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    for output, inside in (("../labels", "."), ("../photos-labels", "."), ("s3://b/in-labels", "s3://b/in")):
        require_apart(output, [inside, "s3://bucket"])
    for output, inside in (("labels", "."), ("s3://b/in", "s3://b/in")):
        with pytest.raises(UsageError, match="is inside the input"):
            require_apart(output, [inside])


@pytest.mark.slow
def test_copies_of_inputs(store: Store, url: str, tmp_path: Path) -> None:
    key = url.removeprefix(f"s3://{BUCKET}/")
    for name in ("a.txt", "in/b.txt", "in/deep/c.txt", "last/d.txt", "part-1.txt", ".hidden"):
        store.put(f"{key}/{name}", name.encode())
    assert local_copy(tmp_path / "x") == tmp_path / "x"
    copy = local_copy(url)
    assert set(below(copy)) == {"a.txt", "in/b.txt", "in/deep/c.txt", "last/d.txt", "part-1.txt"}
    assert local_copy(url + "/") == copy and str(copy).endswith(f"/s3/{BUCKET}/{key}")
    assert set(below(local_copy(url, leave_out=["last", "part-*"]))) == {"a.txt", "in/b.txt", "in/deep/c.txt"}
    assert local_copy(f"{url}/in/b.txt").read_text() == "in/b.txt"
    assert not local_copy(f"{url}/nowhere").exists()
    store.put(f"{key}/a.txt", b"another")
    assert visible(url)["a.txt"] == "another" and below(copy)["a.txt"] == "a.txt"
    for old in (cache_folder() / "inputs").iterdir():
        os.utime(old, (0, 0))
    store.put(f"{key}/a.txt", b"a third one")
    local_copy(url)
    assert not copy.exists()
    assert cache_folder().stat().st_mode & 0o777 == 0o700


def test_a_folder_downloaded_by_other_means(tmp_path: Path) -> None:
    write(tmp_path, {".current": ".000001-ab", ".000001-ab/model": "1"})
    assert (local_copy(tmp_path) / "model").read_text() == "1"


@pytest.mark.slow
def test_wrong_urls(store: Store, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for call in (local_copy, lambda path_or_url: Output.at(path_or_url).require_usable()):
        with pytest.raises(DataError, match="s3://absent/x: there is no bucket 'absent'"):
            call("s3://absent/x")
        with pytest.raises(UsageError, match=f"s3://{BUCKET}//x: has an empty part"):
            call(f"s3://{BUCKET}//x")
        object_store._open.cache_clear()
        with monkeypatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
            with pytest.raises(DataError, match=r"AWS_ENDPOINT_URL=http://127.0.0.1:1: nothing answers there"):
                call(url)
        object_store._open.cache_clear()
