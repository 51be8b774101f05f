"""What `bench.peers` believes: who computes the same network, who is faster, what was asked."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from bench.contenders import INT8, OURS, PLAN, Settings, is_int8
from minidnn.measure.ratios import Ratio, Verdict, at_least, at_most, speed_ratio

SAME = 1e-3  # relative: float32 rounding grows from step to step
# A quantised network is another one: most pictures keep their class, logits are near.
SAME_CLASS = 0.5
NEAR = 0.25

ASKED = {"quicknet": 2.0, "plain_cnn": 1.0}
# Of inference with QuickNet: of one picture, and of larger batches.
ONE, MANY = 1.3, 1.25
IDLE = 1.5  # 99th percentile with idle gaps against the median of calls back to back


def flat(value: Any) -> list[float]:
    """Return the numbers of nested lists."""
    return [x for part in value for x in flat(part)] if isinstance(value, list) else [value]


def farthest(ours: list[float], theirs: list[float]) -> float:
    """Return the largest difference, NaN if any is."""
    return max((abs(x - y) for x, y in zip(ours, theirs, strict=False)), key=lambda d: (d != d, d))


def check_same(name: str, ours: list[Any], theirs: list[Any], what: str) -> None:
    """Raise unless both sides computed the same losses or logits in every step."""
    for step, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        a, b = flat(mine), flat(other)
        far = farthest(a, b)
        if len(a) != len(b) or not far <= SAME * max(map(abs, b)):
            raise SystemExit(
                f"minidnn and {name} do not compute the same network: {what} of step {step} are "
                f"{a[:3]} against {b[:3]}, farthest apart by {far:.3g}"
            )


def check_near(name: str, ours: list[Any], theirs: list[Any]) -> dict[str, float]:
    """Return how far a quantised side's logits are from float32's; raise if that is too far.

    Returns
    -------
    dict
        ``largest_error``, relative to the largest float32 logit, and ``same_class``, the share
        of pictures with the same largest logit.
    """
    rows = [row for step in ours for row in step]
    others = [row for step in theirs for row in step]
    a, b = flat(rows), flat(others)
    if len(a) != len(b):
        raise SystemExit(f"{name}: expected {len(a)} logits as float32 gives, got {len(b)}")
    error = farthest(a, b) / max(map(abs, a))
    same = [x.index(max(x)) == y.index(max(y)) for x, y in zip(rows, others, strict=True)]
    share = sum(same) / len(same)
    if not (error <= NEAR and share >= SAME_CLASS):
        raise SystemExit(
            f"{name} is no quantised version of the same network: its logits are up to {error:.3g} "
            f"of the largest away from float32's, {share:.0%} of the pictures have the same class"
        )
    return {"largest_error": error, "same_class": share}


# --- who is faster ---------------------------------------------------------------------------


def own(timed: Mapping[str, Any], int8: bool) -> str | None:
    """Return the name of minidnn's fastest way of that precision that was timed."""
    names = (INT8,) if int8 else (PLAN, OURS)
    return next((name for name in names if name in timed), None)


def judge(sides: dict[str, dict[str, Any]], settings: Settings) -> dict[str, Any]:
    """Add to each side its speed and its ratio; return those against the best mode.

    A mode is held against minidnn at the same precision: float32 against the plan if there is
    one, int8 against int8.
    """
    timed = {name: side for name, side in sides.items() if "seconds" in side}
    for name, side in timed.items():
        side["images_per_second"] = settings.batch / statistics.median(side["seconds"])
        mine = own(timed, is_int8(name))
        if mine is not None and name != mine:
            side["ratio"] = speed_ratio(timed[mine]["seconds"], side["seconds"])._asdict()
            side["memory_ratio"] = timed[mine]["peak_memory"] / side["peak_memory"]
        if settings.what == "infer":
            side.pop("values")
    found = best(timed, int8=False)
    if settings.what == "infer":
        found |= {f"int8_{name}": value for name, value in best(timed, int8=True).items()}
        mine = own(timed, int8=True)
        if mine is not None:
            float32 = timed[own(timed, int8=False) or OURS]["seconds"]
            found["int8_gain"] = speed_ratio(timed[mine]["seconds"], float32)._asdict()
    return found


def best(timed: Mapping[str, Any], int8: bool) -> dict[str, Any]:
    """Return the ratios against the best mode of a precision; nothing if none was timed.

    In a quiet run that is the mode with the most images per second; under noise ratios tell more.
    """
    modes = [
        name
        for name, side in timed.items()
        if is_int8(name) == int8 and name not in (OURS, PLAN, INT8) and "ratio" in side
    ]
    if not modes:
        return {}
    name = min(modes, key=lambda mode: timed[mode]["ratio"]["median"])
    ratio = timed[name]["ratio"]
    return {
        "ratio": ratio["median"],
        "ratio_low": ratio["low"],
        "ratio_high": ratio["high"],
        "best_mode": name,
        "memory_ratio": timed[name]["memory_ratio"],
    }


def judge_gaps(rounds: Mapping[str, list[Any]]) -> dict[str, dict[str, Any]]:
    """Return each side's percentiles, medians over rounds, and how p99 with gaps compares.

    ``idle`` is p99 with gaps over the median of calls back to back; ``against`` OpenVINO's p99
    with gaps over this side's, of the same precision: above 1 this side is faster.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, parts in rounds.items():
        side: dict[str, Any] = {
            pace: {p: statistics.median(part[pace][p] for part in parts) for p in parts[0][pace]}
            for pace in ("back_to_back", "paced")
        }
        late = [part["paced"]["p99"] for part in parts]
        side["idle"] = speed_ratio([part["back_to_back"]["p50"] for part in parts], late)._asdict()
        rival = f"openvino_{'int8' if is_int8(name) else 'float32'}"
        if rival in rounds and rival != name:
            theirs = [part["paced"]["p99"] for part in rounds[rival]]
            side["against"] = speed_ratio(late, theirs)._asdict()
        found[name] = side
    return found


# --- what was asked --------------------------------------------------------------------------


def judged(found: dict[str, Any], network: str) -> list[Verdict]:
    """Hold training against what was asked for."""
    ours = found["sides"][OURS]
    spread = f"{found['train_ratio_low']:.2f} to {found['train_ratio_high']:.2f}"
    verdicts = [
        at_least(
            f"{network}: training against {found['best_mode']}",
            ASKED[network],
            found["train_ratio"],
            spread,
        )
    ]
    if network != "quicknet":  # of which memory and the first step are asked
        return verdicts
    verdicts.append(at_most("peak memory against the same mode's", 0.7, found["memory_ratio"], "x"))
    for cache, limit in (("cold", 30.0), ("warm", 3.0)):
        if f"first_{cache}_seconds" in ours:
            verdicts.append(
                at_most(f"first step, {cache} cache", limit, ours[f"first_{cache}_seconds"], " s")
            )
    return verdicts


def judged_inference(batches: Mapping[int, Any], gaps: Mapping[str, Any]) -> list[Verdict]:
    """Hold inference with QuickNet against what was asked for; the unmeasured is not met."""
    verdicts = []
    for batch, found in batches.items():
        asked = ONE if batch == 1 else MANY
        for precision, prefix in (("float32", ""), ("int8", "int8_")):
            what = f"{precision}, batch {batch}"
            if f"{prefix}ratio" not in found:
                verdicts.append(Verdict(what, f"{asked:.2f}x", "not measured", False))
                continue
            low, high = found[f"{prefix}ratio_low"], found[f"{prefix}ratio_high"]
            what += f" against {found[f'{prefix}best_mode']}"
            spread = f"{low:.2f} to {high:.2f}"
            verdicts.append(at_least(what, asked, found[f"{prefix}ratio"], spread))
        if "int8_gain" in found:
            gain = str(Ratio(**found["int8_gain"]))
            what = f"int8 over minidnn's own float32, batch {batch}"
            verdicts.append(Verdict(what, "reported", gain, True))
    return [*verdicts, *judged_gaps(gaps)]


def judged_gaps(gaps: Mapping[str, Any]) -> list[Verdict]:
    """Hold the 99th percentile with idle gaps against calls back to back, or OpenVINO's."""
    verdicts = []
    for int8 in (False, True):
        name = own(gaps, int8)
        if name is None:
            continue
        idle, against = gaps[name]["idle"]["median"], gaps[name].get("against")
        got = f"{idle:.2f}x" + (f"; OpenVINO's is {against['median']:.2f}x ours" if against else "")
        met = idle <= IDLE or (against is not None and against["median"] >= 1)
        what = f"{'int8' if int8 else 'float32'}, batch 1: p99 with idle gaps over p50 without"
        verdicts.append(Verdict(what, f"{IDLE}x, or OpenVINO's p99", got, met))
    return verdicts
