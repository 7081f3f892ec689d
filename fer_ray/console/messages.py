"""What messages show: URLs for their local copies, a job's uploaded copy of its folder, and no secrets.

Secrets are passwords in URLs, signatures, and what the environment keeps.
"""

import os
import re
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


_KEPT_SECRET = r"pass(?:word|wd|phrase)|token|secret|(?:access|account|api|private|shared)[-_.]?key"
_NAMES = rf"(?:{_KEPT_SECRET}|pwd|signature|credential)"
_URLS = (
    # scheme://user:password@host; a path that was made of a URL has one slash.
    re.compile(r"(?P<kept>\b[a-zA-Z][\w.+-]+:/{1,2}[^:/@\s]*:)\S+(?=@)"),
    re.compile(r"(?P<kept>\b(?:https?|s3|gs):/{1,2})[^:/@\s]+(?=@)"),  # a token in the place of the user
    re.compile(rf"(?i)(?P<kept>[?&;](?:[\w.%-]*{_NAMES}[\w.%-]*|sig|key)=)[^&\s]+"),
)
_ASSIGNED = re.compile(rf"(?i)(?P<kept>\b[\w.-]*{_NAMES}=)[^&\s]+")
_VARIABLE = re.compile(rf"(?i)(?:{_KEPT_SECRET}|^mysql_pwd)$")  # PWD and OLDPWD are folders
_SHORTEST = 8
"""Characters of an environment variable's value from which on it is looked for; a shorter one may be any word."""


def redacted(text: str) -> str:
    """Replace secrets by ``***``.

    These are passwords and signatures in URLs, what follows ``password=`` and the like, and the values of environment
    variables that are called so (``AWS_SECRET_ACCESS_KEY``, ``PGPASSWORD``, ``…_TOKEN``) wherever they stand.
    """
    for value in _of_environment():
        text = text.replace(value, "***")
    for secret in (*_URLS, _ASSIGNED):
        text = secret.sub(r"\g<kept>***", text)
    return text


def holds_secret(url: str) -> bool:
    """Say whether a URL has a password or a signature in it."""
    return any(secret.search(url) for secret in _URLS)


def _of_environment() -> list[str]:
    values = {value for name, value in os.environ.items() if _VARIABLE.search(name) and len(value) >= _SHORTEST}
    return sorted(values, key=len, reverse=True)
