"""Products by halves: right for every number of pairs, within their memory, image by image."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import minidnn as nn
from minidnn.kernels import strassen
from minidnn.kernels.jit import kernel
from minidnn.kernels.simd import LANES
from minidnn.kernels.tile import TILE_COLUMNS, TILE_ROWS
from minidnn.measure.peaks import Peaks
from minidnn.measure.plan_report import explain
from minidnn.plan import table
from minidnn.plan.compiler import MANY_IMAGES as MANY
from minidnn.plan.compiler import Plan
from minidnn.threads import max_threads, num_threads, set_num_threads

K, N = 4 * LANES, 4 * TILE_COLUMNS
CANARY = np.float32(-777)
PEAKS = Peaks(flops=1e11, bandwidth=1e10, by_isa={}, by_set={}, threads=2)


@kernel
def _multiply(
    a: Any, b: Any, c: Any, blocks: Any, rest: Any, k: int, panels: Any, bias: Any, slope: Any,
    room: Any,
) -> None:  # fmt: skip
    strassen.multiply_halves(
        a.ctypes.data, a.shape[1], k, blocks, rest, b.ctypes.data, panels, bias.size,
        c.ctypes.data, c.shape[1], (bias.ctypes.data, slope.ctypes.data), room.ctypes.data,
    )  # fmt: skip


def _product(rows: int, run: Any, panels: Any, a: Any = None) -> tuple[Any, Any, Any]:
    """Return A, C as it was computed in the middle of canaries, and C in float64."""
    rng = np.random.default_rng(rows)
    blocks, rest = run
    matrix = rng.standard_normal((K, N)).astype(np.float32)
    bias, slope = rng.standard_normal((2, N)).astype(np.float32)
    whole = np.full((rows, K + 16), np.nan, np.float32)  # what lies behind must not matter
    whole[:, :K] = rng.standard_normal((rows, K)) if a is None else a
    c = np.full((rows + 2, N + 5), CANARY)
    room = np.full(strassen.room_of(blocks[0] * blocks[2] + rest[1], K) + 8, CANARY)
    packed = strassen.pack_halves(matrix)
    _multiply(whole, packed, c[1:], blocks, rest, K, panels, bias, slope, room)
    assert (room[-8:] == CANARY).all()
    want = whole[:, :K].astype(np.float64) @ matrix + bias
    return whole[:, :K], c, np.where(want > 0, want, want * slope)


RUNS = [
    (2, ((1, 0, 1, 2), (0, 0, 0))),
    (2 * TILE_ROWS + 6, ((1, 0, TILE_ROWS + 3, 2), (0, 0, 0))),
    (15, ((3, 5, 2, 2), (4, 3, 5))),  # images of five pixels
    (TILE_ROWS + 1, ((0, 0, 0, 0), (0, TILE_ROWS + 1, 1))),  # of one
    (2 * TILE_ROWS + 1, ((1, 0, TILE_ROWS, 2), (2 * TILE_ROWS, 1, 0))),
    (30, ((2, 2, 6, 5), (4, 6, 5))),  # pixels 0 and 1, 2 and 3, and 4 of six images of five
]


@pytest.mark.parametrize(("rows", "run"), RUNS)
def test_equals_the_plain_product_and_writes_nothing_else(rows: int, run: Any) -> None:
    _, c, want = _product(rows, run, (0, 2))
    assert np.abs(c[1:-1, :N] - want).max() < 3e-6 * np.abs(want).max()
    c[1:-1, :N] = CANARY
    assert (c == CANARY).all()


def test_some_panels_are_the_same_columns_of_both_halves() -> None:
    rows, run = RUNS[1]
    whole, part = (_product(rows, run, panels)[1] for panels in ((0, 2), (1, 2)))
    half = N // 2
    for start in (0, half):
        assert (part[1:-1, start : start + TILE_COLUMNS] == CANARY).all()
        columns = slice(start + TILE_COLUMNS, start + half)
        assert np.array_equal(part[:, columns], whole[:, columns])


def test_rows_are_pairs_and_no_others_matter() -> None:
    rows, run = RUNS[2]
    a, before, _ = _product(rows, run, (0, 2))
    changed = a.copy()
    changed[7] = np.nan  # of pixels 5 .. 9, pairs are (5, 6), (7, 8) and 9 alone
    _, after, _ = _product(rows, run, (0, 2), changed)
    same = [np.array_equal(x, y) for x, y in zip(before[1:-1], after[1:-1], strict=True)]
    assert [i for i, it in enumerate(same) if not it] == [7, 8]


def test_the_check_notices_a_wrong_sum() -> None:
    rows, run = RUNS[1]
    _, c, want = _product(rows, run, (0, 2))
    c[3, 5] += 1e-4 * np.abs(want).max()
    assert np.abs(c[1:-1, :N] - want).max() > 3e-6 * np.abs(want).max()


# --- in plans --------------------------------------------------------------------------

# Height, width, pooled; a matrix that is paired for any number of images, and one for many.
MAPS = [(6, 4, False), (6, 4, True), (4, 5, False), (7, 7, True), (3, 3, False), (3, 3, True),
        (3, 2, False), (2, 3, True), (1, 7, False), (14, 14, True), (10, 12, False)]  # fmt: skip
SIZES = [(128, 192), (512, 576)]


@pytest.fixture
def _threads() -> Iterator[None]:
    before = num_threads()
    yield
    set_num_threads(before)


def _plan(height: int, width: int, pooled: bool, sizes: tuple[int, int]) -> tuple[nn.Module, Plan]:
    rng = np.random.default_rng(height)
    layers: list[nn.Module] = [nn.SeparableConv2d(sizes[0], sizes[1], 3, rng=rng)]
    layers += [nn.PReLU(sizes[1]), *([nn.MaxPool2d(2)] if pooled else [])]
    model = nn.Sequential(*layers).eval()
    plan = nn.compile(model, (1, height, width, sizes[0]))
    assert len(plan.program.steps) == 1
    assert table.paired(plan.program.steps[0], *sizes)
    return model, plan


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("height", "width", "pooled"), MAPS)
@pytest.mark.usefixtures("_threads")
def test_a_plan_by_halves_computes_what_the_model_computes(
    height: int, width: int, pooled: bool, sizes: tuple[int, int]
) -> None:
    model, plan = _plan(height, width, pooled, sizes)
    for n in (1, 3, MANY, 2 * MANY + 1):
        x = np.random.default_rng(n).standard_normal((n, height, width, sizes[0]))
        x = x.astype(np.float32)
        with nn.no_grad():
            want = model(nn.Tensor(x)).data
        set_num_threads(max_threads())
        found = plan(x)
        assert np.abs(found - want).max() < 1e-5 * np.abs(want).max()
        set_num_threads(1)
        assert np.array_equal(plan(x), found)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("width", [4, 7])
def test_full_convolutions_and_their_groups_are_multiplied_by_halves(
    groups: int, width: int
) -> None:
    channels = 32 * groups, 192 * groups
    rng = np.random.default_rng(groups)
    model = nn.Conv2d(*channels, 3, padding=1, groups=groups, bias=True, rng=rng).eval()
    plan = nn.compile(model, (1, 7, width, channels[0]))
    assert table.paired(plan.program.steps[0], 9 * 32, 192)
    for n in (1, MANY + 2):
        x = rng.standard_normal((n, 7, width, channels[0])).astype(np.float32)
        with nn.no_grad():
            want = model(nn.Tensor(x)).data
        assert np.abs(plan(x) - want).max() < 1e-5 * np.abs(want).max()


def test_python_threads_may_begin_with_many_images_at_once() -> None:
    model, plan = _plan(3, 3, False, SIZES[1])
    x = np.random.default_rng(0).standard_normal((MANY, 3, 3, SIZES[1][0])).astype(np.float32)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(plan, [x] * 8))
    with nn.no_grad():
        want = model(nn.Tensor(x)).data
    assert all(np.array_equal(one, found[0]) for one in found)
    assert np.abs(found[0] - want).max() < 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("height", "width", "pooled"), [(7, 7, False), (3, 3, False)])
def test_an_image_does_not_show_in_another_ones_result(
    height: int, width: int, pooled: bool, sizes: tuple[int, int]
) -> None:
    _, plan = _plan(height, width, pooled, sizes)
    x = np.random.default_rng(0).standard_normal((MANY + 1, height, width, sizes[0]))
    x = x.astype(np.float32)
    want = plan(x)
    x[3] = np.nan
    found = plan(x)
    assert np.isnan(found[3]).all()
    assert np.array_equal(np.delete(found, 3, 0), np.delete(want, 3, 0))


def test_bits_of_an_image_depend_on_whether_images_are_many_and_on_nothing_else() -> None:
    _, plan = _plan(3, 3, False, SIZES[1])
    x = np.random.default_rng(0).standard_normal((3 * MANY, 3, 3, SIZES[1][0])).astype(np.float32)
    many, few = plan(x), plan(x[: MANY - 1])
    assert np.array_equal(plan(x[MANY:]), many[MANY:])
    assert np.array_equal(np.concatenate([plan(one[None]) for one in x[: MANY - 1]]), few)
    assert np.abs(few - many[: MANY - 1]).max() < 1e-5 * np.abs(many).max()


def test_halves_of_large_matrices_are_made_for_many_images_alone() -> None:
    _, plan = _plan(3, 3, False, SIZES[1])
    x = np.zeros((MANY, 3, 3, SIZES[1][0]), np.float32)
    before, sizes = plan.weights.size, []
    for images in (x[:-1], x):
        plan(images)
        sizes.append(0 if plan._late is None else plan._late[0].size)
    assert sizes[0] == 0
    assert sizes[1] > 1.5 * before
    assert plan.weights.size == before


def test_a_matrix_that_is_always_taken_by_halves_is_not_kept_whole_besides() -> None:
    _, plan = _plan(6, 4, False, SIZES[0])
    whole = 4 * SIZES[0][0] * SIZES[0][1]
    assert 7 / 4 * whole < plan.weights.size < 2 * whole


@pytest.mark.parametrize(("n", "told"), [(1, False), (MANY, True)])
def test_explain_says_which_products_are_taken_by_halves(n: int, told: bool) -> None:
    _, plan = _plan(3, 3, False, SIZES[1])
    (row,) = explain(plan, n, PEAKS).rows
    assert ("product by halves" in row.what) == told
