"""Messages without secrets, and the hint about a job's relative paths."""

import os
import re
from pathlib import Path

_UPLOADED = "/runtime_resources/working_dir_files/"
_HINT = (
    " (This is a job's uploaded copy of the working directory, where relative paths begin. Give absolute paths on"
    " storage that every node sees, or s3:// or gs:// URLs.)"
)


def is_uploaded(path: Path) -> bool:
    """Return whether a path is in the copy of the working directory that `ray job submit` uploads."""
    return _UPLOADED in f"{path}/"


def explained(text: str) -> str:
    """Return a message, with a hint about relative paths if it names a path in a job's uploaded working directory."""
    return text + (_HINT if _UPLOADED in text and _HINT not in text else "")


_SECRET_NAMES = r"pass(?:word|wd|phrase)|token|secret|(?:access|account|api|private|shared)[-_.]?key"
_NAMES = rf"(?:{_SECRET_NAMES}|pwd|signature|credential)"
_URLS = (
    # scheme://user:password@host. pathlib turns the two slashes into one.
    re.compile(r"(?P<kept>\b[a-zA-Z][\w.+-]+:/{1,2}[^:/@\s]*:)\S+(?=@)"),
    re.compile(r"(?P<kept>\b(?:https?|s3|gs):/{1,2})[^:/@\s]+(?=@)"),  # a token as the user name
    re.compile(rf"(?i)(?P<kept>[?&;](?:[\w.%-]*{_NAMES}[\w.%-]*|sig|key)=)[^&\s]+"),
)
_ASSIGNED = re.compile(rf"(?i)(?P<kept>\b[\w.-]*{_NAMES}=)[^&\s]+")
_VARIABLE = re.compile(rf"(?i)(?:{_SECRET_NAMES}|^mysql_pwd)$")  # PWD and OLDPWD are folders
_SHORTEST = 8
"""Least length of an environment variable's value that is replaced; shorter ones may be ordinary words."""


def redacted(text: str) -> str:
    """Replace secrets by ``***``.

    Secrets are passwords and signatures in URLs, values after ``password=`` and similar names, and the values of
    environment variables with such names (``AWS_SECRET_ACCESS_KEY``, ``PGPASSWORD``, ``…_TOKEN``).
    """
    values = {value for name, value in os.environ.items() if _VARIABLE.search(name) and len(value) >= _SHORTEST}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "***")
    for secret in (*_URLS, _ASSIGNED):
        text = secret.sub(r"\g<kept>***", text)
    return text


def holds_secret(url: str) -> bool:
    """Return whether a URL contains a password or a signature."""
    return any(secret.search(url) for secret in _URLS)
