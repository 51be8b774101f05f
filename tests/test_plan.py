"""`minidnn.compile`: a plan computes what the model computes in evaluation mode."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import numba
import numpy as np
import pytest

import minidnn as nn
from minidnn.errors import ConfigError, DTypeError, GraphError, ShapeError
from minidnn.kernels import memory
from minidnn.kernels.plan import fields
from minidnn.kernels.plan.run import run
from minidnn.models import MODELS, build
from minidnn.plan import table
from minidnn.plan.compiler import Plan, turns_of
from minidnn.plan.memory import Life, arrange
from minidnn.plan.program import Program, Step
from minidnn.threads import max_threads, num_threads, set_num_threads

SMALL: dict[str, dict[str, Any]] = {
    "quicknet": {"stem": 5, "stages": (7, 18), "blocks": 2},
    "quicknet_b": {"stem": 5, "stages": (7, 18), "blocks": 1},
    "quicknet_elem": {"stem": 5, "stages": (7, 18), "blocks": 1},
    "plain_cnn": {"stem": 5, "stages": (7, 18), "blocks": 1},
    "mlp": {},
}


def _settled(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give a model running statistics and weights that are not those it starts with."""
    rng = np.random.default_rng(seed)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.data[...] = rng.normal(0, 0.3, buffer.data.shape)
        elif name.endswith("running_var"):
            buffer.data[...] = rng.uniform(0.5, 2, buffer.data.shape)
    for parameter in model.parameters():
        parameter.data[...] += rng.normal(0, 0.05, parameter.data.shape).astype(np.float32)
    return model.eval()


def _images(n: int, shape: tuple[int, ...], seed: int = 1) -> Any:
    return np.random.default_rng(seed).standard_normal((n, *shape)).astype(np.float32)


def _expected(model: nn.Module, x: Any) -> tuple[Any, ...]:
    with nn.no_grad():
        found = model.eval()(nn.Tensor(x))
    found = list(found.values()) if isinstance(found, dict) else found
    return tuple(t.data for t in (found if isinstance(found, tuple | list) else [found]))


def _check(model: nn.Module, shape: tuple[int, ...], *sizes: int) -> Plan:
    """Hold a plan against its model on batches of some sizes."""
    plan = nn.compile(model, (1, *shape))
    for n in sizes or (1, 3, 21):
        x = _images(n, shape)
        found = plan(x)
        found = found if isinstance(found, tuple) else (found,)
        for got, want in zip(found, _expected(model, x), strict=True):
            assert got.shape == want.shape
            assert got.dtype == np.float32
            largest = np.abs(want).max(initial=0)
            assert np.abs(got - want).max(initial=0) <= 2e-5 * max(largest, 1e-3), n
    return plan


@pytest.mark.parametrize("name", MODELS)
def test_every_model_compiles_without_an_op_left_over(name: str) -> None:
    shape = (21, 21, 3)
    model = build(
        name, num_classes=5, input_shape=shape, rng=np.random.default_rng(0), **SMALL[name]
    )
    plan = _check(_settled(model), shape)
    assert "op" not in {step.kind for step in plan.program.steps}


def test_quicknet_becomes_a_stem_a_product_per_block_a_mean_and_a_product() -> None:
    plan = nn.compile(build("quicknet", rng=np.random.default_rng(0)), (1, 32, 32, 3))
    assert [step.kind for step in plan.program.steps] == [*["convolve"] * 13, "average", "convolve"]
    assert [step.pool for step in plan.program.steps].count(2) == 3
    assert sum("taps" in step.arrays for step in plan.program.steps) == 12
    assert plan._table[0, fields.SOURCE] == fields.ON_MAP  # nothing is copied for the stem


LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "conv 3x3": (lambda: nn.Conv2d(3, 5, 3, padding=1), (9, 7, 3)),
    "conv stride 2, same": (lambda: nn.Conv2d(3, 33, 3, stride=2, padding="same"), (9, 7, 3)),
    "conv 1x1 stride 2": (lambda: nn.Conv2d(4, 6, 1, stride=2), (7, 7, 4)),
    "conv dilated": (lambda: nn.Conv2d(3, 5, 3, padding=2, dilation=2), (9, 8, 3)),
    "conv dilated apart": (lambda: nn.Conv2d(3, 5, (3, 2), dilation=(2, 3)), (9, 8, 3)),
    "conv where windows lie": (lambda: nn.Conv2d(3, 40, 5, stride=2, dilation=(2, 1)), (13, 12, 3)),
    "conv grouped": (lambda: nn.Conv2d(6, 9, 3, padding=1, groups=3), (6, 5, 6)),
    "conv grouped 1x1": (lambda: nn.Conv2d(6, 4, 1, groups=2), (6, 5, 6)),
    "conv 5x5, padding wider than the map": (lambda: nn.Conv2d(2, 3, 5, padding=4), (2, 3, 2)),
    "depthwise 3x3": (lambda: nn.DepthwiseConv2d(17), (6, 5, 17)),
    "depthwise stride 2": (lambda: nn.DepthwiseConv2d(5, 3, stride=2, bias=True), (7, 8, 5)),
    "depthwise 5x5, multiplier": (lambda: nn.DepthwiseConv2d(5, 5, multiplier=3), (7, 8, 5)),
    "pointwise": (lambda: nn.PointwiseConv2d(17, 40, bias=True), (3, 5, 17)),
    "separable": (lambda: nn.SeparableConv2d(5, 33), (5, 4, 5)),
    "separable with biases": (lambda: nn.SeparableConv2d(16, 7, bias=True), (5, 4, 16)),
    "separable 5x5": (lambda: nn.SeparableConv2d(3, 7, 5), (6, 7, 3)),
    "batch norm": (lambda: nn.BatchNorm2d(5), (3, 4, 5)),
    "batch norm without affine": (lambda: nn.BatchNorm2d(5, affine=False), (3, 4, 5)),
    "batch norm 1d": (lambda: nn.BatchNorm1d(5), (5,)),
    "prelu per channel": (lambda: nn.PReLU(5), (3, 4, 5)),
    "prelu per layer": (lambda: nn.PReLU(), (3, 4, 5)),
    "prelu per element": (lambda: nn.PReLU((3, 4, 5)), (3, 4, 5)),
    "relu": (lambda: nn.ReLU(), (3, 4, 5)),
    "leaky relu": (lambda: nn.LeakyReLU(0.2), (3, 4, 5)),
    "max pool": (lambda: nn.MaxPool2d(2), (5, 4, 3)),
    "max pool overlapping": (lambda: nn.MaxPool2d(3, 2, padding=1), (7, 8, 3)),
    "max pool ceil": (lambda: nn.MaxPool2d(2, ceil_mode=True), (5, 7, 3)),
    "average pool": (lambda: nn.AvgPool2d(3, 2, padding=1), (7, 8, 3)),
    "average pool of real pixels": (
        lambda: nn.AvgPool2d(3, 2, padding=1, ceil_mode=True, count_include_pad=False),
        (6, 8, 3),
    ),
    "global average pool": (lambda: nn.GlobalAvgPool2d(), (5, 3, 17)),
    "flatten and linear": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(60, 33)), (3, 4, 5)),
    "linear of 1,024": (lambda: nn.Linear(1024, 10), (1024,)),
    "dropout": (lambda: nn.Sequential(nn.Dropout(0.5), nn.PReLU(3)), (4, 4, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_compiles_by_itself(name: str) -> None:
    make, shape = LAYERS[name]
    plan = _check(_settled(make()), shape, 1, 2, 19)
    assert "op" not in {step.kind for step in plan.program.steps}


CHAINS: dict[str, tuple[Any, tuple[int, ...], list[str]]] = {
    "conv, norm, prelu, pool": (
        lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.PReLU(5), nn.MaxPool2d(2)),
        (8, 8, 3),
        ["convolve"],
    ),
    "pool that leaves a line over": (
        lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.MaxPool2d(2)),
        (9, 7, 3),
        ["convolve"],
    ),
    "separable with an activation between": (
        lambda: nn.Sequential(
            nn.DepthwiseConv2d(5), nn.BatchNorm2d(5), nn.ReLU(), nn.PointwiseConv2d(5, 9)
        ),
        (6, 6, 5),
        ["depthwise", "convolve"],
    ),
    "activation before the norm": (
        lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.PReLU(5), nn.BatchNorm2d(5)),
        (6, 6, 3),
        ["convolve", "scale"],
    ),
    "norms in a row": (
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.PReLU((4, 4, 3))),
        (4, 4, 3),
        ["scale"],
    ),
    "grouped with norm and prelu": (
        lambda: nn.Sequential(
            nn.Conv2d(6, 4, 3, groups=2), nn.BatchNorm2d(4), nn.PReLU(4), nn.MaxPool2d(2)
        ),
        (6, 6, 6),
        ["convolve", "largest"],
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_chains_are_joined(name: str) -> None:
    make, shape, kinds = CHAINS[name]
    plan = _check(_settled(make()), shape, 1, 2, 19)
    assert [step.kind for step in plan.program.steps] == kinds


class Branches(nn.Module):
    """A residual sum, a concatenation, padding, an early exit, an alias that is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.block = nn.SeparableConv2d(8, 8)
        self.act = nn.PReLU(8)
        self.exit = nn.Linear(8, 4)
        self.wide = nn.Conv2d(16, 6, 3)
        self.head = nn.Linear(6, 4)

    def forward(self, x: nn.Tensor) -> dict[str, nn.Tensor]:
        """Return two sets of logits and a map."""
        x = self.stem(x)
        y = self.act(x + self.block(x))
        early = self.exit(y.mean(axis=(1, 2)))
        z = self.wide(nn.pad(nn.concat([y, x], axis=3), ((0, 0), (1, 2), (0, 1), (0, 0))))
        return {"early": early, "late": self.head(nn.GlobalAvgPool2d()(z)), "map": y}


@pytest.mark.parametrize("n", [1, 5, 40])
def test_branches_residuals_and_several_outputs(n: int) -> None:
    plan = _check(_settled(Branches()), (6, 7, 3), n)
    assert "op" not in {step.kind for step in plan.program.steps}


class WithOps(nn.Module):
    """Ops that have no compiled step, between some that have."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)
        self.gain = nn.Parameter(np.full(4, 1.5, np.float32))

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        """Scale by a parameter, square, take the largest pixel."""
        y: nn.Tensor = self.last(((self.first(x) * self.gain) ** 2.0).max(axis=(1, 2)))
        return y


def test_ops_of_the_engine_without_a_compiled_step_run_by_themselves_and_silently() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = _check(_settled(WithOps()), (5, 5, 3))
    assert [step.kind for step in plan.program.steps] == ["convolve", "op", "op", "op", "convolve"]


@nn.op
def halved(x: Any) -> Any:
    """A user's own."""
    return x * np.float32(0.5), lambda dy: dy * np.float32(0.5)


class WithOwnOp(nn.Module):
    """A user's op, twice."""

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        """Halve, and halve again."""
        y: nn.Tensor = halved(halved(x))
        return y


def test_a_users_own_op_runs_through_its_own_function_and_warns_once() -> None:
    with pytest.warns(UserWarning, match="'halved'") as caught:
        plan = nn.compile(WithOwnOp(), (1, 4, 3))
    assert len(caught) == 1
    x = _images(3, (4, 3))
    assert np.array_equal(plan(x), x / 4)


def test_bits_of_small_matrices_depend_neither_on_threads_nor_on_the_batch() -> None:
    model = _settled(build("quicknet", rng=np.random.default_rng(0), **SMALL["quicknet"]))
    plan, x, before = nn.compile(model, (1, 32, 32, 3)), _images(18, (32, 32, 3)), num_threads()
    want = plan(x)
    try:
        for threads in range(1, before + 1):
            set_num_threads(threads)
            assert np.array_equal(plan(x), want)
            assert np.array_equal(np.concatenate([plan(part[None]) for part in x]), want)
    finally:
        set_num_threads(before)


def test_nan_comes_out_where_it_came_in() -> None:
    model = _settled(build("quicknet", rng=np.random.default_rng(0), **SMALL["quicknet"]))
    plan, x = nn.compile(model, (1, 32, 32, 3)), _images(3, (32, 32, 3))
    x[1, 5, 5, 0] = np.nan
    assert np.isnan(plan(x)).all(axis=1).tolist() == [False, True, False]


def test_a_plan_keeps_its_weights_when_the_model_changes() -> None:
    model = nn.Linear(3, 2)
    plan, x = nn.compile(model, (1, 3)), _images(2, (3,))
    want = plan(x)
    model.weight.data[...] = 7
    assert np.array_equal(plan(x), want)


def test_python_threads_may_share_a_plan() -> None:
    model = _settled(build("quicknet", rng=np.random.default_rng(0), **SMALL["quicknet"]))
    plan = nn.compile(model, (1, 32, 32, 3))
    inputs = [_images(n, (32, 32, 3), seed=n) for n in (1, 2, 9, 17)]
    want = [plan(x) for x in inputs]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(10):
            if not np.array_equal(plan(inputs[i]), want[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(max_threads() < 2, reason="one thread has nobody to wait for")
def test_turns_of_threads_that_never_come_are_taken_by_the_others() -> None:
    model = _settled(build("quicknet", rng=np.random.default_rng(0), **SMALL["quicknet"]))
    plan, x = nn.compile(model, (1, 21, 21, 3)), _images(2, (21, 21, 3))
    want = plan(x)
    layout = plan.layout(2)
    room = layout.idle[-1]
    room.outputs[0][...] = np.nan
    room.images[...] = x  # the two may share memory
    (regions,) = layout.pieces
    before = numba.get_num_threads()
    numba.set_num_threads(1)  # so one thread gets all parts, one after the other
    try:
        run.dispatcher(
            layout.table, plan.weights, room.memory, regions, layout.segments, 2, layout.threads,
            layout.local, layout.local_size, room.scratch, room.state,
        )  # fmt: skip
    finally:
        numba.set_num_threads(before)
    assert np.array_equal(room.outputs[0], want)


def test_pixels_of_a_value_that_is_written_in_two_shapes_lie_close() -> None:
    steps = [
        Step("convolve", [0], 1, (2, 1, 3), (2, 1, 128), ["a"]),
        Step("convolve", [0], 1, (1, 1, 6), (1, 1, 256), ["b"]),
        Step("average", [1], 2, (2, 1, 128), (1, 1, 128), ["c"]),
    ]
    program = Program([6, 256, 128], steps, 0, (6,), [(2, (128,))])
    assert table.pitches(program) == {}
    steps.pop(1)
    assert table.pitches(program) == {1: 128 + table.APART}


@pytest.mark.skipif(max_threads() < 2, reason="one thread has nobody to wait for")
@pytest.mark.parametrize("counts", [(1, 2), (2, 1)])
def test_the_number_of_threads_may_change_while_a_call_begins(counts: tuple[int, int]) -> None:
    layers = nn.SeparableConv2d(128, 192), nn.MaxPool2d(2)
    plan, x = nn.compile(nn.Sequential(*layers).eval(), (1, 7, 7, 128)), _images(1, (7, 7, 128))
    want, before = plan(x), num_threads()
    try:
        set_num_threads(counts[0])
        plan(x)
        layout = plan.layout(1)
        room = layout.idle[-1]
        room.outputs[0][...] = np.nan
        room.images[...] = x
        set_num_threads(counts[1])
        plan._run(layout, 1, room)
    finally:
        set_num_threads(before)
    assert np.array_equal(room.outputs[0], want)


@pytest.mark.parametrize(
    ("height", "pool", "turns"), [(14, 2, 4), (14, 1, 2), (12, 2, 2), (2, 2, 2), (18, 2, 2)]
)
def test_few_windows_left_over_are_cut_by_panels(height: int, pool: int, turns: int) -> None:
    layers = [nn.Conv2d(64, 64, 3, padding=1), *([nn.MaxPool2d(pool)] if pool > 1 else [])]
    plan = nn.compile(nn.Sequential(*layers).eval(), (1, height, 24, 64))
    assert turns_of(plan._table[0], 1, 2) == turns
    assert turns_of(plan._table[0], 1, 1) == 1


def test_a_call_like_the_one_before_takes_no_new_memory() -> None:
    model = _settled(build("quicknet", rng=np.random.default_rng(0), **SMALL["quicknet"]))
    plan = nn.compile(model, (1, 32, 32, 3))
    for n in (1, 64):
        x = _images(n, (32, 32, 3))
        plan(x)
        before = memory.counts()
        plan(x)
        assert memory.counts() == before


def test_no_images_give_no_rows() -> None:
    plan = nn.compile(_settled(nn.Linear(3, 2)), (1, 3))
    assert plan(np.zeros((0, 3), np.float32)).shape == (0, 2)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((2, 4), np.float32), ShapeError, r"expected images of shape \(N, 3\)"),
        (np.zeros(3, np.float32), ShapeError, "expected images"),
        (np.zeros((2, 3)), DTypeError, "expected float32 images, got float64"),
    ],
)
def test_wrong_images_are_named(x: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nn.compile(_settled(nn.Linear(3, 2)), (1, 3))(x)


@pytest.mark.parametrize("shape", [(32,), (0, 3), (1, -3), ()])
def test_a_shape_that_is_none_of_a_batch_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="expected the shape of a batch"):
        nn.compile(nn.Linear(3, 2), shape)


class Mixing(nn.Module):
    """Looks at all images at once."""

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        """Return the batch's mean."""
        return x.mean(axis=0, keepdims=False)


def test_a_model_that_mixes_images_is_refused() -> None:
    with pytest.raises(GraphError, match="every image by itself"):
        nn.compile(Mixing(), (1, 3, 4))


# --- memory ---------------------------------------------------------------------------------


class _Chain(nn.Module):
    """Three separable convolutions; the value between the last two is read in several ways."""

    def __init__(self, reader: str) -> None:
        super().__init__()
        self.first, self.middle, self.last = (nn.SeparableConv2d(128, 128) for _ in range(3))
        self.act, self.pool, self.reader = nn.ReLU(), nn.MaxPool2d(2), reader

    def forward(self, x: Any) -> Any:
        middle = self.pool(self.middle(self.act(self.first(x))))
        if self.reader == "output":
            return self.last(middle), middle
        return self.last(middle) + middle if self.reader == "sum" else self.last(middle)


@pytest.mark.parametrize(("reader", "count"), [("product", 2), ("sum", 1), ("output", 1)])
def test_pixels_lie_apart_where_nobody_but_windows_reads_them(reader: str, count: int) -> None:
    plan = _check(_Chain(reader), (7, 6, 128), 1, 3, 17)
    assert set(plan.pitches.values()) == {128 + table.APART}
    assert len(plan.pitches) == count


def test_values_that_live_at_the_same_time_never_overlap() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        lives = {}
        for value in range(rng.integers(1, 20)):
            first = int(rng.integers(0, 15))
            lives[value] = Life(first, first + int(rng.integers(0, 6)), int(rng.integers(1, 500)))
        places, size = arrange(lives)
        for a in lives:
            assert places[a] % 64 == 0
            assert places[a] + lives[a].size <= size
            for b in lives:
                together = lives[a].first <= lives[b].last and lives[b].first <= lives[a].last
                if a < b and together:
                    apart = places[a] + lives[a].size <= places[b]
                    assert apart or places[b] + lives[b].size <= places[a]


def test_values_of_a_chain_share_two_places() -> None:
    lives = {v: Life(v, v + 1, 640) for v in range(10)}
    assert arrange(lives)[1] == 2 * 640


@pytest.mark.parametrize(
    ("height", "width", "pool", "lines"),
    [(28, 28, 1, 4), (28, 28, 2, 4), (14, 14, 2, 8), (7, 7, 2, 14), (3, 3, 1, 36), (27, 27, 2, 27),
     (1, 1, 1, 112), (13, 200, 1, 1), (6, 200, 2, 2)],
)  # fmt: skip
def test_lines_at_a_time_are_whole_windows_and_about_even(
    height: int, width: int, pool: int, lines: int
) -> None:
    assert table.lines_at_a_time(height, width, pool) == lines
