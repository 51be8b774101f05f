"""What would not fit or take too long is refused before it runs, with the estimate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from minidnn.errors import InputError
from minidnn.measure import limits


def _system(folder: Path, available: int, groups: str, files: Mapping[str, object]) -> int | None:
    """Make files like those of Linux, and return what is read from them; `available` in kB."""
    proc, cgroups = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: 9999999 kB\nMemAvailable:  {available} kB\n")
    (proc / "self/cgroup").write_text(groups)
    for name, text in files.items():
        (cgroups / name).parent.mkdir(parents=True, exist_ok=True)
        (cgroups / name).write_text(f"{text}\n")
    return limits.available_memory(proc, cgroups)


def test_available_memory_is_what_the_machine_has_free(tmp_path: Path) -> None:
    assert _system(tmp_path, 5000, "0::/\n", {}) == 5000 * 1024


@pytest.mark.parametrize("where", ["", "a/", "a/b/"])
def test_a_containers_limit_counts_less_what_it_uses(tmp_path: Path, where: str) -> None:
    files = {f"{where}memory.max": 3000, f"{where}memory.current": 1000}
    assert _system(tmp_path, 5000, "0::/a/b\n", files) == 2000


def test_the_old_control_groups_count_too(tmp_path: Path) -> None:
    files = {"memory/x/memory.limit_in_bytes": 900, "memory/x/memory.usage_in_bytes": 1000}
    assert _system(tmp_path, 5000, "9:cpu:/x\n4:memory,hugetlb:/x\n", files) == 0


def test_a_group_without_a_limit_leaves_everything(tmp_path: Path) -> None:
    files = {"memory.max": "max", "memory.current": 10}
    assert _system(tmp_path, 5000, "0::/\n", files) == 5000 * 1024


def test_this_machine_tells_something_sensible() -> None:
    available = limits.available_memory()
    assert available is None or 1 << 20 < available < 1 << 50


def test_memory_is_refused_above_the_share_and_not_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "available_memory", lambda: 1_000_000_000)
    limits.check_memory(799_999_999, "all")
    with pytest.raises(InputError, match=r"^ladder x: needs about 900 MB .* only 1 GB are"):
        limits.check_memory(900_000_000, "ladder x")


def test_an_unknown_amount_of_memory_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "available_memory", lambda: None)
    limits.check_memory(1 << 60, "all")


def test_time_is_refused_above_the_limit_and_not_at_it() -> None:
    limits.check_time(60, 60, "rung")
    with pytest.raises(InputError, match=r"^rung python: would take about 2 hours, .* is 60 s"):
        limits.check_time(7200, 60, "rung python")
    with pytest.raises(InputError):
        limits.check_time(float("nan"), 60, "rung")


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2e9, "2 GB"), (7e15, "7,000 TB")],
)
def test_sizes_are_readable(n: float, text: str) -> None:
    assert limits.size_text(n) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0.5 s"), (90, "90 s"), (720, "12 minutes"), (9000, "2.5 hours"), (172_800, "2 days")],
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert limits.time_text(seconds) == text


def test_an_estimate_without_end_is_still_one_line() -> None:
    with pytest.raises(InputError, match="inf days"):
        limits.check_time(np.inf, 60, "rung")
