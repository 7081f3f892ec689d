"""Text, tables and code blocks as Markdown (GitHub's)."""

import re
from collections.abc import Sequence

_MARKS = re.compile(r"([\\`*\[\]<>|])")
_FENCE = "```"


def plain(text: str) -> str:
    """Return text on one line in which nothing is markup."""
    return _MARKS.sub(r"\\\1", " ".join(text.split()))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose cells are plain text; columns that begin with a number are set to the right."""
    rule = ["---:" if rows and rows[0][number][:1].isdigit() else "---" for number in range(len(columns))]
    lines = [map(plain, columns), rule, *(map(plain, row) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def code_block(text: str, language: str) -> str:
    """Return text in a fence that is longer than any in it."""
    fence = _FENCE
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
