"""How sure a share is."""

from scipy.stats import binomtest


def wilson_interval(right: int, rows: int) -> tuple[float, float]:
    """Return the ends of the 95% interval of ``right`` of ``rows``, 0 to 1 (Wilson 1927, doi 10.2307/2276774)."""
    ends = binomtest(right, rows).proportion_ci(0.95, method="wilson")
    return float(ends.low), float(ends.high)
