"""Is one thing faster than another? Bootstrapped ratios, and one of three words.

The ratio is a speed: seconds of the first by seconds of the second, so above 1 the second is
faster. Rounds are drawn again with replacement many times (Efron 1979, "Bootstrap methods"), the
median is taken each time, and the interval holds the middle of these medians. Of few rounds a
bootstrap makes intervals that are too short, so a little more than the middle 95 % is taken
(Hesterberg 2015, "What Teachers Should Know About the Bootstrap", expanded percentiles). Where 1
lies in it, chance alone would explain the difference, and the word is "inconclusive".
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minidnn.errors import InputError
from minidnn.measure import results
from minidnn.measure.ratios import CHANCE
from minidnn.measure.tables import Table

RESAMPLES = 4000
SEED = 20170107  # the same rounds give the same interval, always
LEAST_ROUNDS = 7  # fewer cannot hold a median to 95 %

FASTER, SLOWER, INCONCLUSIVE = "faster", "slower", "inconclusive"


class Compared(NamedTuple):
    """How many times as fast the second is, the interval that lies in, and the word for it."""

    ratio: float
    low: float
    high: float
    word: str

    def __str__(self) -> str:
        return f"{self.ratio:.2f} ({self.low:.2f} to {self.high:.2f})"


def paired(first: Sequence[float], second: Sequence[float]) -> Compared:
    """Compare seconds taken in turns: the ratio of a round counts, since both met the same moment.

    Raises
    ------
    ValueError
        If there is not one number per round on each side.
    """
    ratios = np.divide(*_pairs(first, second))
    medians = np.median(_resampled(ratios, np.random.default_rng(SEED)), axis=1)
    return _compared(float(np.median(ratios)), medians, len(ratios))


def unpaired(first: Sequence[float], second: Sequence[float]) -> Compared:
    """Compare seconds that were not taken together: the ratio of the medians counts."""
    rng = np.random.default_rng(SEED)
    a, b = np.asarray(first, float), np.asarray(second, float)
    over, under = (np.median(_resampled(side, rng), axis=1) for side in (a, b))
    return _compared(float(np.median(a) / np.median(b)), over / under, min(a.size, b.size))


def _pairs(first: Sequence[float], second: Sequence[float]) -> tuple[NDArray[Any], NDArray[Any]]:
    if len(first) != len(second) or not first:
        raise ValueError(f"expected pairs of rounds, got {len(first)} and {len(second)}")
    return np.asarray(first, float), np.asarray(second, float)


def _resampled(values: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Return many samples of the values, drawn with replacement, one per row."""
    return np.asarray(values[rng.integers(0, values.size, (RESAMPLES, values.size))])


def _compared(ratio: float, medians: NDArray[Any], rounds: int) -> Compared:
    below = tail(rounds)
    low, high = (float(q) for q in np.quantile(medians, [below, 1 - below]))
    return Compared(ratio, low, high, word(low, high) if rounds >= LEAST_ROUNDS else INCONCLUSIVE)


def tail(rounds: int) -> float:
    """Return which part of the medians an interval leaves out at each end: CHANCE / 2 or less.

    It is where Student's t, stretched by sqrt(n / (n - 1)), would lie under the normal curve;
    t comes from its expansion in 1 / (n - 1) (Abramowitz and Stegun 26.7.5).
    """
    if rounds < 2:
        return 0.0
    normal, free = statistics.NormalDist(), rounds - 1
    z = normal.inv_cdf(1 - CHANCE / 2)
    t = (
        z
        + (z**3 + z) / (4 * free)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * free**3)
    )
    return normal.cdf(-t * math.sqrt(rounds / free))


def word(low: float, high: float) -> str:
    """Return what an interval of the second's speed over the first's says about the second."""
    if low > 1:
        return FASTER
    return SLOWER if high < 1 else INCONCLUSIVE


def row(
    case: Mapping[str, Any], first: list[float], second: list[float], compared: Compared
) -> dict[str, Any]:
    """Return one compared case as JSON holds it."""
    return {
        "case": dict(case),
        "first_seconds": first,
        "second_seconds": second,
        **compared._asdict(),
    }


# --- files ----------------------------------------------------------------------------------

RUN, KIND = "bench run", "bench compare"  # kinds of files: what is compared, and what comes out
KEYS = ("ladder", "rung", "label", "batch")  # what a case of one file and of another share


def read_run(path: Path) -> dict[str, Any]:
    """Read what ``minidnn bench run`` wrote.

    Raises
    ------
    InputError
        If it is another file, of another version, or holds no measurements.
    """
    result = results.read(path, RUN)
    cases = result.get("cases")
    if not isinstance(cases, list) or not cases or not all(map(_is_case, cases)):
        raise InputError(f"{path}: expected cases with seconds per round; measure again")
    if not isinstance(result.get("machine"), dict):
        raise InputError(f"{path}: expected a description of the machine; measure again")
    return result


def _is_case(case: Any) -> bool:
    if not isinstance(case, dict) or not {*KEYS, "seconds"} <= case.keys():
        return False
    seconds = case["seconds"]
    return isinstance(seconds, list) and bool(seconds) and all(map(_is_time, seconds))


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 < value < float("inf")


def compare_files(first: Path, second: Path) -> dict[str, Any]:
    """Compare two runs of the same cases, on two machines, say.

    Raises
    ------
    InputError
        If a file cannot be read, or they have no case in common.
    """
    files = [read_run(path) for path in (first, second)]
    a, b = ({tuple(case[key] for key in KEYS): case for case in f["cases"]} for f in files)
    both = [key for key in a if key in b]
    if not both:
        raise InputError(f"{first} and {second} have no op, rung, shape and batch in common")
    rows = [
        row(
            dict(zip(KEYS, key, strict=True)),
            a[key]["seconds"],
            b[key]["seconds"],
            unpaired(a[key]["seconds"], b[key]["seconds"]),
        )
        for key in both
    ]
    return {
        "first": str(first),
        "second": str(second),
        "paired": False,
        "left_out": len(a) + len(b) - 2 * len(both),
        "differences": differences(*(f["machine"] for f in files)),
        "rows": rows,
    }


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return what two machines do not share, by name; the date aside."""
    flat = [
        {**{k: v for k, v in m.items() if k not in ("date", "versions")}, **m.get("versions", {})}
        for m in (first, second)
    ]
    names = dict.fromkeys([*flat[0], *flat[1]])
    pairs = {name: [side.get(name) for side in flat] for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


# --- what people read -------------------------------------------------------------------------


def table(found: Mapping[str, Any]) -> Table:
    """Return a row per case: both medians, the ratio with its interval, the word."""
    same_rung = all("rung" in r["case"] for r in found["rows"])
    columns = ["op", *(["rung"] if same_rung else []), "shape", "batch"]
    columns += ["first ms", "second ms", "second is", "interval", "rounds", "times as fast"]
    rows = []
    for r in found["rows"]:
        case, sides = r["case"], (r["first_seconds"], r["second_seconds"])
        rows.append(
            [
                case["ladder"],
                *([case["rung"]] if same_rung else []),
                case["label"],
                str(case["batch"]),
                *(f"{np.median(side) * 1e3:.4g}" for side in sides),
                r["word"],
                f"{r['low']:.3f} to {r['high']:.3f}",
                str(min(map(len, sides))),
                f"{r['ratio']:.3f}",
            ]
        )
    return Table(f"{found['second']} against {found['first']}", columns, rows)


def sentences(found: Mapping[str, Any]) -> list[str]:
    """Return what stands below the table."""
    how = "in turns, round by round" if found["paired"] else "not at the same time"
    lines = [
        f"Measured {how}. The ratio is a speed, first seconds / second seconds, its median with a "
        f"{100 * (1 - CHANCE):.0f} % bootstrap interval; {INCONCLUSIVE}: the interval holds 1"
        f" (or there are fewer than {LEAST_ROUNDS} rounds)."
    ]
    if found.get("left_out"):
        lines.append(f"{found['left_out']} cases stand in one file only.")
    if "differences" in found:
        lines += [f"{name}: {a} | {b}" for name, (a, b) in found["differences"].items()] or [
            "Both files name the same CPU, threads and versions."
        ]
    return lines
