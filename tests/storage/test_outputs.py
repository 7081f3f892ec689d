"""Inputs copied from an object store, and outputs saved to one, whole whatever the moment of a kill."""

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from object_store import BUCKET, Store, running_store
from pyarrow import fs

from fer_ray.console.messages import as_shown
from fer_ray.errors import DataError, FerRayError, UsageError
from fer_ray.storage import object_store, outputs
from fer_ray.storage.inputs import cache_folder, local_copy
from fer_ray.storage.local import LOCK_FILE, whole_folder
from fer_ray.storage.outputs import Output, claim, claimed

Files = dict[str, str]


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with running_store() as running:
        yield running


@pytest.fixture
def url(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Return a prefix of its own for each test, whose copies lie in the test's folder."""
    monkeypatch.setenv("FER_RAY_CACHE", str(tmp_path / "cache"))
    return f"s3://{BUCKET}/{request.node.name.replace('[', '-').replace(']', '')}"


def below(folder: Path) -> Files:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def stored(store: Store, url: str) -> Files:
    key = url.removeprefix(f"s3://{BUCKET}/")
    return {name: store.get(f"{key}/{name}").decode() for name in store.keys(key)}


def write(output: Output, files: Files) -> None:
    for name, content in files.items():
        (output.path / name).parent.mkdir(parents=True, exist_ok=True)
        (output.path / name).write_text(content)


def test_an_output_is_saved_and_gone_on_with(store: Store, url: str) -> None:
    with claimed(url) as output:
        assert output.shown == output.place == url and below(output.path) == {}
        assert as_shown(f"{output.path}/a: damaged") == f"{url}/a: damaged"
        write(output, {"a": "1", "last/b": "2", "best/c": "3", ".lock": "", "last/.hidden": ""})
        output.save()
        path = output.path
    assert not path.exists() and list((cache_folder() / "outputs").iterdir()) == []
    assert stored(store, url) == {"a": "1", "last/b": "2", "best/c": "3"}
    with claimed(url + "/", resume=True) as output:
        assert below(output.path) == {"a": "1", "last/b": "2", "best/c": "3"}
        (output.path / "last" / "b").unlink()
        write(output, {"a": "4"})
        output.save()
        assert stored(store, url) == {"a": "4", "best/c": "3"}
        write(output, {"best/c": "5"})
        output.save()
        assert stored(store, url) == {"a": "4", "best/c": "5"}


def test_what_is_not_saved_is_not_there(store: Store, url: str) -> None:
    with pytest.raises(KeyError), claimed(url) as output:
        write(output, {"a": "1"})
        raise KeyError
    assert stored(store, url) == {}


def test_only_what_changed_is_sent(store: Store, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent, send = list[str](), Output._send

    def note(self: Output, filesystem: fs.FileSystem, name: str, target: str) -> None:
        sent.append(name)
        send(self, filesystem, name, target)

    monkeypatch.setattr(Output, "_send", note)
    with claimed(url) as output:
        write(output, {"a": "1", "b": "1", "c": "1"})
        output.save()
        output.save()
        write(output, {"b": "1"})  # written anew, with the same content
        output.save()
    assert sent == ["a", "b", "c", "b"]


def test_free_and_in_use(store: Store, url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{url}: nothing to resume"):
        claim(url, resume=True)
    store.put(f"{url.removeprefix(f's3://{BUCKET}/')}/x", b"")
    with pytest.raises(UsageError, match=f"{url}: the output is in use"):
        claim(url)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "x").touch()
    with pytest.raises(UsageError, match="in use"), claimed(tmp_path / "here"):
        pass


STEPS = range(11)


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_while_it_saves_leaves_the_former_or_the_new(
    store: Store, url: str, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever reads afterwards sees one of both and no mixture: another stage, a resume, and the next save."""
    previous, new = {"a": "1", "last/b": "1", "gone": "1"}, {"a": "2", "last/b": "2", "more": "2"}
    with claimed(url) as output:
        write(output, previous)
        output.save()

    class Killed(BaseException):
        pass

    done = 0

    class Failing:
        """Of the store's filesystem: the calls that change something, of which only so many are made."""

        def __init__(self, filesystem: fs.FileSystem):
            self.filesystem = filesystem

        def __getattr__(self, name: str) -> object:
            if name in ("copy_file", "delete_file", "delete_dir", "open_output_stream"):
                count()
            return getattr(self.filesystem, name)

    def count() -> None:
        nonlocal done
        if done == step:
            raise Killed
        done += 1

    send, locate = Output._send, outputs.locate
    with claimed(url, resume=True) as output, monkeypatch.context() as patch:
        patch.setattr(outputs, "REQUESTS_AT_ONCE", 1)
        patch.setattr(outputs, "locate", lambda url: (Failing(locate(url)[0]), locate(url)[1]))
        patch.setattr(Output, "_send", lambda self, system, name, to: (count(), send(self, locate(url)[0], name, to)))
        (output.path / "gone").unlink()
        write(output, new)
        ended = True
        try:
            output.save()
        except Killed:
            ended = False
    assert not ended or step == STEPS[-1]
    seen = below(local_copy(url))
    assert seen in (previous, new)
    with claimed(url, resume=True) as output:
        assert below(output.path) == seen
        write(output, {"a": "3", "last/b": "3"})
        output.save()
    assert stored(store, url) == seen | {"a": "3", "last/b": "3"}


def test_another_process_has_a_folder_of_its_own(store: Store, url: str) -> None:
    with claimed(url) as output:
        write(output, {"a": "1"})
        output.save()
        packed = pickle.dumps(output)
        child = os.fork()
        if not child:
            try:
                there = pickle.loads(packed)
                there.fetch()
                ok = there.path != output.path and below(there.path) == {"a": "1"}
                os._exit(0 if ok else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert len(list((cache_folder() / "outputs").iterdir())) == 2
        output.fetch()  # takes away what processes that have ended left
        assert [path.name.partition("-")[0] for path in (cache_folder() / "outputs").iterdir()] == [str(os.getpid())]


def test_folders_in_it(store: Store, url: str, tmp_path: Path) -> None:
    for output in (Output.at(url), Output.at(tmp_path / "local")):
        for name in ("1", "2"):
            inner = output.within(name)
            inner.path.mkdir(parents=True)
            write(inner, {"last/x": name, "y": name})
            inner.save()
            inner.forget()
        assert output.folders() == ["1", "2"]
        output.move("1", "3")
        output.move("absent", "4")
        output.within("2").clear()
        output.within("absent").clear()
        assert output.folders() == ["3"]
        moved = output.within("3")
        moved.fetch()
        assert below(moved.path) == {"last/x": "1", "y": "1"}


def test_a_store_that_refuses_is_told(store: Store, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with claimed(url) as output:
        write(output, {"a": "1"})

        def refuse(*arguments: object) -> None:
            raise OSError("AWS Error ACCESS_DENIED")

        monkeypatch.setattr(Output, "_send", refuse)
        with pytest.raises(FerRayError, match=f"{url}: the object store doesn't do what it is asked: AWS Error ACC"):
            output.save()


def test_copies_of_inputs(store: Store, url: str, tmp_path: Path) -> None:
    key = url.removeprefix(f"s3://{BUCKET}/")
    for name in ("a.txt", "in/b.txt", "in/deep/c.txt", "last/d.txt", "part-1.txt"):
        store.put(f"{key}/{name}", name.encode())
    assert local_copy(tmp_path / "x") == tmp_path / "x"
    copy = local_copy(url)
    assert set(below(copy)) == {"a.txt", "in/b.txt", "in/deep/c.txt", "last/d.txt", "part-1.txt"}
    assert local_copy(url + "/") == copy and copy.name == key
    assert set(below(local_copy(url, leave_out=["last", "part-*"]))) == {"a.txt", "in/b.txt", "in/deep/c.txt"}
    assert local_copy(f"{url}/in/b.txt").read_text() == "in/b.txt"
    assert not local_copy(f"{url}/nowhere").exists()
    store.put(f"{key}/a.txt", b"another")
    assert below(local_copy(url))["a.txt"] == "another" and below(copy)["a.txt"] == "a.txt"
    old = copy.parent
    os.utime(old, (0, 0))
    store.put(f"{key}/a.txt", b"a third one")
    local_copy(url)
    assert not old.exists()
    assert cache_folder().stat().st_mode & 0o777 == 0o700


def test_wrong_urls_end_at_once(store: Store, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for call in (local_copy, claim):
        with pytest.raises(DataError, match="s3://absent/x: there is no bucket 'absent'"):
            call("s3://absent/x")
        with pytest.raises(UsageError, match=f"s3://{BUCKET}//x: has an empty part between two slashes"):
            call(f"s3://{BUCKET}//x")
    object_store._open.cache_clear()
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        for call in (local_copy, claim):
            with pytest.raises(DataError, match=r"AWS_ENDPOINT_URL=http://127.0.0.1:1: nothing answers there"):
                call(url)
    object_store._open.cache_clear()


@pytest.mark.parametrize("before", ["absent", "empty", "with the lock of a failed call"])
@pytest.mark.parametrize("error", [UsageError("a wrong configuration"), RuntimeError("a fault"), OSError(28, "full")])
def test_a_start_that_fails_leaves_the_folder_as_it_was(before: str, error: Exception, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    if before != "absent":
        folder.mkdir()
    if before.startswith("with"):
        (folder / LOCK_FILE).touch()
    with pytest.raises(type(error)), Output.at(folder).owned(False, "busy", lambda: False):
        (folder / "below").mkdir()
        (folder / "below" / "config.yaml").touch()
        (folder / ".partial").touch()
        raise error
    assert folder.exists() == (before != "absent") and (not folder.exists() or not any(folder.iterdir()))
    with Output.at(folder).owned(False, "busy", lambda: False):
        pass
    with whole_folder(folder) as partial:
        (partial / "made").touch()
    assert [path.name for path in folder.iterdir()] == ["made"]


@pytest.mark.parametrize(
    ("resume", "is_begun", "kind"),
    [(True, False, KeyError), (False, True, KeyError), (False, False, KeyboardInterrupt)],
)
def test_what_can_be_resumed_stays(resume: bool, is_begun: bool, kind: type[BaseException], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    if resume:
        (folder / "epoch").touch()
    with pytest.raises(kind), Output.at(folder).owned(resume, "busy", lambda: is_begun):
        (folder / "epoch").touch()
        raise kind
    assert (folder / "epoch").is_file()


def test_a_start_that_fails_leaves_no_object(url: str, store: Store) -> None:
    with pytest.raises(RuntimeError), claimed(url) as output, output.owned(False, "busy", lambda: False):
        write(output, {"config.yaml": "a", "below/b": "b"})
        output.save()
        raise RuntimeError
    assert stored(store, url) == {}
    assert claim(url).shown == url
