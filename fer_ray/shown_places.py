"""What users read in place of the paths of local copies: the URLs that they named."""

from pathlib import Path

_SHOWN = dict[str, str]()  # by the path of the copy


def show_as(copy: Path, url: str) -> None:
    """Let messages of this process name the URL wherever they hold the path of its local copy."""
    _SHOWN[str(copy)] = url


def as_shown(text: str) -> str:
    """Return a text with the URLs in place of the paths of their local copies."""
    for copy, url in _SHOWN.items():
        text = text.replace(copy, url)
    return text
