"""Numbers as words of a sentence."""

from fer_ray.learning.metrics import wilson_interval


def amount(number: int, thing: str) -> str:
    """Return a number of things: ``1 image``, ``1,300 images``."""
    return f"{number:,} {thing}{'s' * (number != 1)}"


def points(share: float) -> str:
    """Return a difference of shares in percentage points: ``1 point``, ``1.4 points``."""
    text = f"{abs(100 * share):.1f}".removesuffix(".0")
    return f"{text} point{'s' * (text != '1')}"


def interval(right: int, rows: int) -> str:
    """Return the 95% interval (Wilson) of a share of rows, such as ``26% to 50%``."""
    low, high = wilson_interval(right, rows)
    return f"{low:.0%} to {high:.0%}"
