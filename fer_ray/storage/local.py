"""Output folders that are either whole or absent."""

import fcntl
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fer_ray.console.messages import is_uploaded
from fer_ray.errors import UsageError

LOCK_FILE = ".lock"
# A path that was made of a URL has one slash of the two.
_URL = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]+):(?://|/(?!/))(?P<rest>.*)", re.DOTALL)


def local_path(path: Path | str) -> Path:
    """Return an absolute local path.

    Raises:
        UsageError: the path is a URL such as ``s3://bucket/folder``.
    """
    if url := split_url(path):
        raise UsageError(f"{'://'.join(url)}: this stage works on local paths, not URLs. Copy it to a local folder.")
    return Path(path).expanduser().absolute()


def local_paths(paths: Path | str | Sequence[Path | str]) -> list[Path]:
    """Return one path or several as absolute local ones.

    Raises:
        UsageError: as for ``local_path``.
    """
    return [local_path(path) for path in ([paths] if isinstance(paths, (Path, str)) else paths)]


def split_url(place: Path | str) -> tuple[str, str] | None:
    """Return the scheme, in small letters, and the rest of a URL, or of a path made of one; None for a local path."""
    match = _URL.fullmatch(str(place))
    return (match["scheme"].lower(), match["rest"]) if match else None


def claim_output(path: Path | str, resume: bool = False) -> Path:
    """Check that an output folder is free to write to, and return its absolute path without making it.

    Raises:
        UsageError: there is a file, or a folder that is not empty while ``resume`` is False, or none while it is True;
            or it is in a job's uploaded working directory, which Ray removes.
    """
    folder = local_path(path)
    if is_uploaded(folder):
        raise UsageError(f"{folder}: this output would be lost after the job.")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; an output folder was expected. Choose another path.")
    in_use = folder.is_dir() and any(path.name != LOCK_FILE for path in folder.iterdir())
    if in_use and not resume:
        raise UsageError(
            f"{folder}: the output folder is in use, and nothing is overwritten. Choose a new folder, or go on with"
            " this one by --resume where the stage has that."
        )
    if resume and not in_use:
        raise UsageError(f"{folder}: nothing to resume, the folder is missing or empty. Run once without --resume.")
    return folder


@contextmanager
def own_output(folder: Path, resume: bool, otherwise: str, is_begun: Callable[[], bool]) -> Iterator[None]:
    """Make an output folder that was claimed, and keep other processes of this machine from it.

    Where the block fails before there is anything to resume, a new output is as it was before: absent, or empty. A
    mended call is not refused then.

    Args:
        folder: as ``claim_output`` returned it, which is asked once more: another process may have been quicker.
        resume: as there.
        otherwise: what to say where another process is at work in it.
        is_begun: whether there is something to resume.

    Raises:
        UsageError: one is, or has been since; or the folder can't be made.
    """
    existed = folder.is_dir()
    make_folder(folder)
    with locked_folder(folder, otherwise):
        claim_output(folder, resume)
        try:
            yield
        except Exception:
            if folder.is_dir() and not resume and not is_begun():  # no longer there as the copy of a cleared URL
                for path in folder.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                if not existed:
                    shutil.rmtree(folder, ignore_errors=True)
            raise


@contextmanager
def locked_folder(folder: Path, otherwise: str) -> Iterator[None]:
    """Keep other processes of this machine from entering the same block for a folder; a kill frees it.

    Args:
        folder: that exists; its ``.lock`` stays.
        otherwise: what to say where another process is inside.

    Raises:
        UsageError: one is; or the folder can't be written or locked.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context((folder / LOCK_FILE).open("w"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{folder}: {otherwise}. Wait for its end or stop it, then --resume.") from None
        except OSError as error:
            raise UsageError(
                f"{folder / LOCK_FILE}: can't be locked: {error.strerror}. Choose an output where you may write."
            ) from error
        yield


def make_folder(path: Path) -> None:
    """Make a folder and those above it; it may be there already.

    Raises:
        UsageError: it can't be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{path}: the folder can't be made: {error.strerror}. Choose an output where you may write."
        ) from error


@contextmanager
def whole_folder(dest: Path, replace: bool = False) -> Iterator[Path]:
    """Yield a folder beside ``dest`` to write to; it becomes ``dest`` when the block ends well, else it is removed.

    After a kill only the hidden ``.NAME.partial`` is left, which the next call removes. With ``replace`` an existing
    ``dest`` makes way in two renames; ``recover_folder`` undoes a kill between them.
    """
    partial, old = _beside(dest, "partial"), _beside(dest, "old")
    shutil.rmtree(partial, ignore_errors=True)
    make_folder(partial)
    try:
        yield partial
        if replace and dest.exists():
            shutil.rmtree(old, ignore_errors=True)
            dest.rename(old)
        elif dest.is_dir():  # claimed: nothing but the lock of a call that has failed may be in it
            (dest / LOCK_FILE).unlink(missing_ok=True)
            dest.rmdir()
        partial.rename(dest)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(dest: Path) -> None:
    """Put back the previous ``dest`` where a kill struck between the two renames of ``whole_folder``."""
    old = _beside(dest, "old")
    if old.exists() and not dest.exists():
        with suppress(FileNotFoundError):  # another worker of the same run was quicker
            old.rename(dest)


def remove_leftovers(dest: Path) -> None:
    """Remove what a kill left beside ``dest``; only for the one process that writes there."""
    recover_folder(dest)
    for suffix in ("partial", "old"):
        shutil.rmtree(_beside(dest, suffix), ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder, so that a kill leaves it whole or absent; ``remove_leftovers`` takes what is left beside it."""
    partial = _beside(path, "partial")
    shutil.rmtree(partial, ignore_errors=True)
    path.rename(partial)
    shutil.rmtree(partial)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that readers see all of it or the previous one."""
    partial = _beside(path, "partial")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    partial.replace(path)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}.{suffix}")
