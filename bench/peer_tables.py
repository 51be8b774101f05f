"""What people read of the result of `bench.peers`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from minidnn.measure.latency import CAMERA_GAP
from minidnn.measure.ratios import Ratio
from minidnn.measure.tables import Table, verdict_table


def table(found: Mapping[str, Any], title: str) -> Table:
    """Return one comparison as a table with a row per side."""
    columns = ["", "images/s", "ms", "minidnn / this", "peak MiB", "imports", "minidnn / this"]
    columns += ["first, cold", "warm", "threads", "CPUs"]
    prose = ["how"] if any("how" in side for side in found["sides"].values()) else []
    rows = []
    for name, side in found["sides"].items():
        if "failed" in side:
            rows.append([name, "failed"])
            continue
        rows.append(
            [
                name,
                f"{side['images_per_second']:.1f}",
                f"{1e3 * statistics.median(side['seconds']):.2f}",
                str(Ratio(**side["ratio"])) if "ratio" in side else "",
                f"{side['peak_memory']:.0f}",
                f"{side['imported_memory']:.0f}",
                f"{side['memory_ratio']:.2f}" if "memory_ratio" in side else "",
                *(
                    f"{side[key]:.1f} s" if (key := f"first_{cache}_seconds") in side else ""
                    for cache in ("cold", "warm")
                ),
                str(side["threads"]),
                ", ".join(map(str, side["affinity"] or ["any"])),
                *([how(side)] if prose else []),
            ]
        )
    return Table(title, [*columns, *prose], rows, prose)


def how(side: Mapping[str, Any]) -> str:
    """Return how an engine ran, and how far a quantised network is from the other."""
    parts = [side["how"]] if "how" in side else []
    if "largest_error" in side:
        parts.append(
            f"logits up to {side['largest_error']:.1%} off float32's, "
            f"{side['same_class']:.1%} the same class"
        )
    return "; ".join(parts)


def gap_table(gaps: Mapping[str, Any], calls: int) -> Table:
    """Return percentiles of single calls, back to back and with idle gaps, a row per side."""
    gap = f"{1e3 * CAMERA_GAP:g} ms gaps"
    columns = ["", "back to back: p50 ms", "p95", "p99", f"{gap}: p50 ms", "p95", "p99"]
    columns += ["p99 with gaps / p50 without", "p99 with gaps, OpenVINO / this"]
    rows = [
        [
            name,
            *(
                f"{1e3 * side[pace][percentile]:.2f}"
                for pace in ("back_to_back", "paced")
                for percentile in ("p50", "p95", "p99")
            ),
            str(Ratio(**side["idle"])),
            str(Ratio(**side["against"])) if "against" in side else "",
        ]
        for name, side in gaps.items()
    ]
    return Table(f"one picture, {calls} single calls a round, medians of rounds", columns, rows)


def tables(found: Mapping[str, Any]) -> list[Table]:
    """Return what people read of the result, verdicts last."""
    what = f"{found['what']}, {found['network']}"
    if found["what"] == "infer":
        parts = [
            table(part, f"{what}, batch {batch}, {found['rounds']} rounds")
            for batch, part in found["batches"].items()
        ]
        parts.append(gap_table(found["gaps"], found["calls"]))
    else:
        title = f"{what}, batch {found['batch']}, {found['rounds']} rounds"
        parts = [table(found, title)]
    return [*parts, verdict_table(found["verdicts"])] if "verdicts" in found else parts


def failures(found: Mapping[str, Any]) -> list[str]:
    """Return why modes are missing, as text, each reason once."""
    parts = found["batches"].values() if found["what"] == "infer" else [found]
    reasons = [
        side["failed"] for part in parts for side in part["sides"].values() if "failed" in side
    ]
    return list(dict.fromkeys(reasons))
