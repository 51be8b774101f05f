"""The machine's peaks: loops that do what is counted, places by cache, a cache that is checked."""

from __future__ import annotations

import json
import math
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minidnn.kernels.simd import ISA, LANES
from minidnn.measure import caches, peak_loops, peaks, timing
from minidnn.measure.caches import KIB, MIB, Cache
from minidnn.measure.peaks import Level, Peaks
from tests.processes import run

LEVELS = (
    Level("L1", 64 * KIB, 16 * KIB, 400e9, 300e9),
    Level("L2", 2 * MIB, 512 * KIB, 100e9, 150e9),
    Level("memory", math.inf, 64 * MIB, 20e9, 15e9),
)
ALONE = peaks.assemble(1, {"avx2": 50e9}, LEVELS[1:])
FOUND = peaks.assemble(2, {"avx512": 200e9, "avx2": 100e9}, LEVELS, ALONE)


def test_multiply_adds_are_as_many_as_the_formula_counts() -> None:
    threads, steps = 3, 1001
    rows = np.zeros((threads, peak_loops.ROWS, LANES), np.float32)
    rows[:, -2:] = 1  # each turn adds 1 to each sum: sum * 1 + 1
    peak_loops.multiply_adds(rows, steps)
    assert 2 * rows[:, :-2].sum() == peak_loops.flops(threads, steps)
    assert (rows[:, : peak_loops.CHAINS] == steps).all()


def test_each_sum_is_a_chain_of_its_own() -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((2, peak_loops.ROWS, LANES)).astype(np.float32)
    want = rows.astype(np.float64)
    for _ in range(3):
        used = want[:, : peak_loops.CHAINS]
        used[:] = used * want[:, -2:-1] + want[:, -1:]
    peak_loops.multiply_adds(rows, 3)
    np.testing.assert_allclose(rows, want, rtol=1e-5, atol=1e-5)


def test_reading_visits_every_byte_as_often_as_counted() -> None:
    n = 6 * peak_loops.BLOCK // 4
    rows = np.arange(2 * n, dtype=np.float32).reshape(2, n) % 7
    sums = np.empty((2, LANES), np.float32)
    peak_loops.move(rows, sums, peak_loops.READ, 3)
    assert (sums.sum(axis=1) == 3 * rows.sum(axis=1)).all()
    assert peak_loops.moved(2, rows[0].nbytes, 3) == 3 * rows.nbytes


@pytest.mark.parametrize("way", [peak_loops.COPY, peak_loops.STREAM])
def test_copying_copies_the_first_half_to_the_second(way: int) -> None:
    rows = peaks._aligned(2, 6 * peak_loops.BLOCK)
    assert rows.ctypes.data % 64 == 0
    assert (rows == 1).all()
    half = rows.shape[1] // 2
    rows[:] = np.arange(rows.size, dtype=np.float32).reshape(rows.shape)
    before = rows.copy()
    peak_loops.move(rows, np.empty((2, LANES), np.float32), way, 2)
    assert np.array_equal(rows[:, :half], before[:, :half])
    assert np.array_equal(rows[:, half:], before[:, :half])


def test_peak_is_no_slower_than_a_plain_loop() -> None:
    (fast,) = peaks.fma_rates([1])
    a, b = np.full(4096, 0.5, np.float32), np.ones(4096, np.float32)
    plain = timing.timed(lambda: a * b + b, rounds=3, at_least=0.001)
    assert fast > 2 * a.size / plain.seconds


def test_lesser_instructions_are_measured_in_a_process_that_has_only_those() -> None:
    code = "from minidnn.kernels.simd import ISA, LANES; print(ISA, LANES)"
    for name, settings in peaks.LESSER.items():
        if name in peaks.BELOW.get(ISA, ()):
            done = run(sys.executable, "-c", code, env=settings)
            assert done.stdout.split()[0] == name
            assert len(peaks._in_a_child(name, [1])) == 1


def test_a_failing_child_is_left_out_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peaks.LESSER, "avx2", {"NUMBA_NUM_THREADS": "none"})
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.warns(UserWarning, match="avx2 could not be measured"):
        assert peaks._in_a_child("avx2", [1]) == []


# --- from loops to peaks ------------------------------------------------------------------


def test_rates_are_counted_work_over_the_fastest_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "take_turns", lambda actions, **_: {"": [0.5, 0.25, 2.0]})
    monkeypatch.setattr(peaks, "BELOW", {})
    monkeypatch.setattr(peaks, "caches", lambda cpus: [Cache(1, 32 * KIB, 2)])
    monkeypatch.setattr(peaks, "LARGEST", MIB)
    monkeypatch.setattr(peaks, "num_threads", lambda: 2)
    found = peaks.measure_peaks()
    assert found.by_isa == {ISA: 2 * 2 * peak_loops.CHAINS * LANES * peaks.STEPS / 0.25}
    assert found.flops == found.by_isa[ISA]
    l1, memory = found.levels
    assert (l1.working_set, l1.capacity) == (16 * KIB, 64 * KIB)
    assert l1.read == l1.copy == 2 * peaks.PER_CALL / 0.25
    assert found.by_set == {"L1 16 KiB": l1.read, "memory 512 KiB": memory.read}
    assert found.bandwidth == memory.read
    assert found.alone is not None
    assert found.alone.threads == 1
    assert found.alone.flops == found.flops / 2


def test_bandwidth_is_the_memorys_better_loop_and_flops_the_best_instructions() -> None:
    assert FOUND.bandwidth == 20e9
    assert FOUND.flops == 200e9
    assert FOUND.by_set == {"L1 16 KiB": 400e9, "L2 512 KiB": 150e9, "memory 64 MiB": 20e9}


@pytest.mark.parametrize(
    ("size", "name"), [(1, "L1"), (64 * KIB, "L1"), (64 * KIB + 1, "L2"), (10**12, "memory")]
)
def test_data_lies_in_the_smallest_place_that_holds_it(size: int, name: str) -> None:
    assert FOUND.level(size).name == name


def test_peaks_without_places_answer_with_memory() -> None:
    assert Peaks(1e9, 2e9, {}, {}, 1).level(10).bandwidth == 2e9


def test_working_sets_are_half_of_each_threads_cache() -> None:
    found = [Cache(1, 32 * KIB, 4), Cache(2, MIB, 2), Cache(3, 32 * MIB, 1)]
    assert peaks.working_sets(found, 1) == [
        ("L1", 32 * KIB, 16 * KIB),
        ("L2", MIB, 512 * KIB),
        ("L3", 32 * MIB, 16 * MIB),
        ("memory", math.inf, 128 * MIB),
    ]
    assert peaks.working_sets(found, 4) == [
        ("L1", 128 * KIB, 16 * KIB),
        ("L2", 2 * MIB, 256 * KIB),
        ("L3", 32 * MIB, 4 * MIB),
        ("memory", math.inf, 32 * MIB),
    ]


def test_a_level_that_adds_nothing_is_left_out() -> None:
    found = [Cache(1, 64 * KIB, 8), Cache(2, 512 * KIB, 1)]
    assert [name for name, _, _ in peaks.working_sets(found, 8)] == ["L1", "memory"]


# --- caches -------------------------------------------------------------------------------


def _system(folder: Path, entries: dict[tuple[int, int], tuple[str, ...]]) -> Path:
    for (cpu, index), values in entries.items():
        place = folder / f"cpu{cpu}" / "cache" / f"index{index}"
        place.mkdir(parents=True)
        for name, value in zip(("type", "level", "size", "shared_cpu_list"), values, strict=False):
            (place / name).write_text(f"{value}\n", encoding="ascii")
    return folder


def test_caches_are_read_as_linux_lists_them(tmp_path: Path) -> None:
    entries: dict[tuple[int, int], tuple[str, ...]] = {
        (cpu, index): (kind, level, size, str(cpu) if level != "3" else "0-1")
        for cpu in (0, 1)
        for index, (kind, level, size) in enumerate(
            [("Data", "1", "48K"), ("Instruction", "1", "32K"), ("Unified", "2", "2M"),
             ("Unified", "3", "32768K")]
        )
    }  # fmt: skip
    entries[0, 9] = ("Unified", "4")  # without a size
    system = _system(tmp_path, entries)
    l1, l2, l3 = Cache(1, 48 * KIB, 2), Cache(2, 2 * MIB, 2), Cache(3, 32 * MIB, 1)
    assert caches.caches([0, 1], system) == [l1, l2, l3]
    assert [one.number for one in caches.caches([1], system)] == [1, 1, 1]
    assert l1.capacity(8) == 96 * KIB


def test_usual_sizes_stand_in_for_a_system_that_does_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "system", lambda: "unknown")
    assert [one.level for one in caches.caches([0], tmp_path)] == [1, 2, 3]


# --- kept on disk -------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let measuring be counted instead of done, and keep the results in a folder of the test."""
    calls: list[int] = []
    monkeypatch.setattr(peaks, "cache_root", lambda: tmp_path / "new")

    def measure() -> Peaks:
        calls.append(1)
        return FOUND

    monkeypatch.setattr(peaks, "measure_peaks", measure)
    monkeypatch.setattr(peaks, "undisturbed", lambda: True)
    return calls


def test_peaks_are_measured_once(kept: list[int]) -> None:
    assert peaks.known_peaks() == FOUND
    assert peaks.known_peaks() == FOUND
    assert len(kept) == 1
    assert peaks.known_peaks(again=True) == FOUND
    assert len(kept) == 2


def test_peaks_of_a_busy_machine_are_not_kept(
    kept: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peaks, "undisturbed", lambda: False)
    with pytest.warns(UserWarning, match="not kept"):
        assert peaks.known_peaks() == FOUND
    assert not peaks.kept_in().exists()


@pytest.mark.parametrize(("share", "calm"), [(0.95, True), (0.5, False)])
def test_a_machine_is_calm_if_its_time_is_ours(
    share: float, calm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = [0.0]

    def tick() -> float:
        wall[0] += 0.02
        return wall[0]

    monkeypatch.setattr(peaks, "num_threads", lambda: 2)
    monkeypatch.setattr(time, "perf_counter", tick)
    monkeypatch.setattr(time, "process_time", lambda: 2 * share * wall[0])
    assert peaks.undisturbed() is calm


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"of": 1}', b"\xff\xfe", "changed", "negative", "nan"]
)
def test_a_broken_file_is_measured_again(kept: list[int], text: Any) -> None:
    peaks.known_peaks()
    path = peaks.kept_in()
    whole = json.loads(path.read_text())
    if text == "changed":
        whole["of"]["numpy"] = "0.1"
    elif text in ("negative", "nan"):
        whole["peaks"]["levels"][0]["read"] = {"negative": -1, "nan": math.nan}[text]
    if text in ("changed", "negative", "nan"):
        text = json.dumps(whole)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert peaks.known_peaks() == FOUND
    assert len(kept) == 2
    assert peaks.known_peaks() == FOUND
    assert len(kept) == 2


def test_other_threads_have_other_peaks(kept: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    before = peaks.kept_in()
    monkeypatch.setattr(peaks, "num_threads", lambda: 77)
    assert peaks.kept_in() != before


def test_a_folder_that_cannot_be_written_is_a_warning(
    kept: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(peaks, "cache_root", lambda: tmp_path / "file")
    with pytest.warns(UserWarning, match="cannot be kept"):
        assert peaks.known_peaks() == FOUND
