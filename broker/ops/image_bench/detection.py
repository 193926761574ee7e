"""Detection beside SEP."""

from typing import Any

from broker.bench_rows import Row, at_least
from broker.detection.bench import bench_detection


def rows(side: int, repeats: int) -> list[Row]:
    """Compare detection with SEP."""
    del repeats
    found = bench_detection(side=side)
    gap = float(found["completeness"] - found["sepCompleteness"])
    return [
        at_least("detection / SEP, speed", found["ratio"], 6.0, "SEP 1"),
        Row("detection, Mpix/s", found["megapixelsPerSecond"], "", _sep_speed(found), None),
        at_least("detection - SEP, completeness", gap, -0.005, "0"),
    ]


def _sep_speed(found: dict[str, Any]) -> str:
    return f"SEP {found['sepMegapixelsPerSecond']:.0f}"
