"""Numbers as words of a sentence."""


def amount(number: int, thing: str) -> str:
    """Return a number of things: ``1 image``, ``1,300 images``."""
    return f"{number:,} {thing}{'s' * (number != 1)}"


def points(share: float) -> str:
    """Return a difference of shares in percentage points: ``1 point``, ``1.4 points``."""
    text = f"{abs(100 * share):.1f}".removesuffix(".0")
    return f"{text} point{'s' * (text != '1')}"
