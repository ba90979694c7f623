"""What a list of latencies comes to."""

from __future__ import annotations


def percentiles(values: list[float]) -> dict[str, float] | None:
    """Return median, 99th percentile, greatest and number of values; None for none."""
    if not values:
        return None
    ordered = sorted(values)
    return {
        "p50": ordered[len(ordered) // 2],
        "p99": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
        "max": ordered[-1],
        "count": len(ordered),
    }
