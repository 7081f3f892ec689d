"""How messages name places: URLs for their local copies, and a job's uploaded copy of its folder for what it is."""

from pathlib import Path

_UPLOADED = "/runtime_resources/working_dir_files/"
_SHOWN = dict[str, str]()  # by the path of the copy


def show_as(copy: Path, url: str) -> None:
    """Let messages of this process name the URL wherever they hold the path of its local copy."""
    _SHOWN[str(copy)] = url


def is_uploaded(path: Path) -> bool:
    """Say whether a path lies in the copy of the working directory that `ray job submit` uploads."""
    return _UPLOADED in f"{path}/"


def explained(text: str) -> str:
    """Return a message as ``as_shown`` does, with a word on relative paths where it names one of a job's."""
    hint = (
        " (This is a job's uploaded copy of the working directory, where its relative paths begin. Name absolute paths"
        " on storage that every node sees, or s3:// or gs:// URLs.)"
    )
    return as_shown(text) + (hint if _UPLOADED in text and hint not in text else "")


def as_shown(text: str) -> str:
    """Return a text with the URLs in place of the paths of their local copies."""
    for copy, url in _SHOWN.items():
        text = text.replace(copy, url)
    return text
