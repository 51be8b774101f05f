"""What people read of `serving.measure`: tables of its JSON, and the lines the paper draws."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from minidnn.measure.ratios import speed_ratio
from minidnn.measure.tables import Table

# Frames per second that Ghosh 2017 (arXiv:1701.02291) has in mind on a low-power CPU.
LINES = {15: "what the paper states", 60: "what it hopes for with 8 bits"}
PACES = ("back_to_back", "paced")
FEW = 100  # calls: of fewer the 99th percentile is the slowest

Found = Mapping[str, Any]


def tables(found: Found) -> list[Table]:
    """Return of one case its paces, of several a comparison."""
    if len(found["cases"]) == 1:
        return [_pace_table(found["cases"][0], found)]
    measured = [case for case in found["cases"] if "back_to_back" in case]
    ratios = _ratio_table(measured)
    return [_line_table(found), *([ratios] if ratios.rows else [])]


def texts(found: Found) -> list[str]:
    """Return what stands below the tables."""
    said = []
    counts = [case[pace]["calls"] for case in found["cases"] for pace in PACES if pace in case]
    if counts and min(counts) < FEW:
        said.append(f"p99 of fewer than {FEW} calls is the slowest; the fewest are {min(counts)}")
    if found["joules_missing"]:
        said.append(f"joules: unavailable: {found['joules_missing']}")
    return said


def _milliseconds(pace: Found, *names: str) -> list[str]:
    return [f"{1e3 * pace[name]:.3g}" for name in names]


def _frames(found: Found) -> str:
    return f"{found['batch']} frame{'s' * (found['batch'] > 1)}"


def _idle(found: Found) -> str:
    return f"{1e3 * found['idle']:g} ms idle before"


def _threads(case: Found) -> str:
    return f"{case['threads']} thread{'s' * (case['threads'] > 1)}"


def _name(case: Found) -> str:
    return f"{case['network']}, {case['precision']}, {_threads(case)}"


def _pace_table(case: Found, found: Found) -> Table:
    """Return a row per pace."""
    columns = ["each call", "p50 ms", "p95 ms", "p99 ms", "frames/s", "joules a frame", "calls"]
    rows = []
    for name, title in zip(PACES, ("back to back", _idle(found)), strict=True):
        if name not in case:
            continue
        pace, joules = case[name], case[name]["joules_a_frame"]
        rate = f"{pace['frames_per_second']:,.4g}" if name == "back_to_back" else ""
        rows.append([title, *_milliseconds(pace, "p50", "p95", "p99"), rate])
        rows[-1] += ["unavailable" if joules is None else f"{joules:.3g}", f"{pace['calls']:,}"]
    return Table(f"{case['precision']}, {_frames(found)} a call, {_threads(case)}", columns, rows)


def _line_table(found: Found) -> Table:
    """Return a row per case, the fastest first, and the lines where they belong."""
    columns = ["", "p50 ms", "p99 ms", "frames/s", *(f"/ {line}" for line in LINES)]
    columns += [f"{_idle(found)}: p50 ms", "p99 ms"] if found["idle"] else []
    rows = []
    for case in found["cases"]:
        if "back_to_back" not in case:
            rows.append((0.0, [_name(case), "", "", case["missing"]]))
            continue
        pace = case["back_to_back"]
        rate = pace["frames_per_second"]
        row = [_name(case), *_milliseconds(pace, "p50", "p99"), f"{rate:,.4g}"]
        row += [f"{rate / line:.1f}x" for line in LINES]
        row += _milliseconds(case["paced"], "p50", "p99") if "paced" in case else []
        rows.append((rate, row))
    for line, what in LINES.items():
        most = f"{1e3 * found['batch'] / line:.3g}"
        rows.append((line, [f"--- {line} frames/s: {what} ---", most, most, str(line)]))
    rows.sort(key=lambda row: -row[0])
    return Table(f"{_frames(found)} a call, back to back", columns, [row for _, row in rows])


def _ratio_table(measured: Sequence[Found]) -> Table:
    """Return how many times faster one of two cases is that differ in one thing."""
    rows = []
    for two in itertools.combinations(measured, 2):
        unlike = [k for k in ("network", "precision", "threads") if two[0][k] != two[1][k]]
        if len(unlike) > 1:
            continue
        fast, slow = sorted(two, key=lambda case: -case["back_to_back"]["frames_per_second"])
        ratio = speed_ratio(*(case["back_to_back"]["round_p50"] for case in (fast, slow)))
        other = _threads(slow) if unlike == ["threads"] else str(slow[unlike[0]])
        rows.append([f"{_name(fast)}, against {other}", str(ratio)])
    return Table("times faster, by medians of rounds", ["", "x"], rows)
