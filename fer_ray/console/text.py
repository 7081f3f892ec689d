"""Numbers as text."""


def per_time(rate: float, unit: str = "") -> str:
    """Return a rate, given per second, as text: ``812 images/s``, ``2.5 trials/min``."""
    number, time_unit = (f"{rate:,.0f}", "s") if rate >= 1 else (f"{rate * 60:.1f}", "min")
    return f"{number} {unit}".rstrip() + f"/{time_unit}"


def duration(seconds: float) -> str:
    """Return seconds as text: ``48 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def describe_bytes(amount: float) -> str:
    """Return a number of bytes as text: ``66.6 MiB``, ``2 GiB``."""
    power = min(4, max(0, int(amount).bit_length() - 1) // 10)
    unit = ("bytes", "KiB", "MiB", "GiB", "TiB")[power]
    return f"{amount / 1024**power:,.1f}".removesuffix(".0") + f" {unit}"


def amount(number: int, thing: str) -> str:
    """Return a number with its noun: ``1 image``, ``1,300 images``."""
    return f"{number:,} {thing}{'s' * (number != 1)}"


def points(share: float) -> str:
    """Return a difference of two shares, each 0 to 1, in percentage points: ``1 point``, ``1.4 points``."""
    text = f"{abs(100 * share):.1f}".removesuffix(".0")
    return f"{text} point{'s' * (text != '1')}"
