"""`minidnn profile`: times, work and memory by layer, and what it costs when it is off."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minidnn
from minidnn import Module, Sequential, Tensor
from minidnn.cli import main
from minidnn.errors import GraphError, InputError
from minidnn.kernels import memory
from minidnn.kernels.ladder import using
from minidnn.measure.profile import Profile, profiling
from minidnn.measure.profiled import Layer, Pass, Result
from minidnn.measure.steps import needed_bytes, profile_inference, profile_training
from minidnn.measure.summary import summarize
from minidnn.measure.trace import LEAST, Span, Trace
from minidnn.models.quicknet import QuickNet
from minidnn.tensor import op


class Clock:
    """Stands still but for the work that is done, and counts who asks."""

    now, calls = 0.0, 0

    def __call__(self) -> float:
        self.calls += 1
        return self.now


clock = Clock()


@pytest.fixture(autouse=True)
def _set_clock() -> None:
    clock.now, clock.calls = 0.0, 0


@op(macs=lambda y, x, **settings: 10 * y.size)
def work(x: Any, *, forward: float, backward: float) -> Any:
    """Take some time on the fake clock; y = 2 x."""
    clock.now += forward

    def back(dy: Any) -> Any:
        clock.now += backward
        return 2 * dy

    return 2 * x, back


@op
def both(a: Any, b: Any) -> Any:
    """a + b, with a lazy closure for each."""
    clock.now += 0.5

    def back(dy: Any) -> Any:
        clock.now += 0.25
        return dy.copy()

    return a + b, (back, back)


class Layered(Module):
    def __init__(self, forward: float, backward: float) -> None:
        super().__init__()
        self.forward_seconds, self.backward_seconds = forward, backward

    def forward(self, x: Tensor) -> Tensor:
        return work(x, forward=self.forward_seconds, backward=self.backward_seconds)


class Residual(Module):
    """x + b(a(x)), twice as deep as needed."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Sequential({"a": Layered(1.0, 3.0), "deep": Sequential(Layered(2.0, 5.0))})

    def forward(self, x: Tensor) -> Tensor:
        return both(x, self.body(x))


def _layers(result: Result) -> dict[str, Layer]:
    return {layer.label: layer for layer in result.layers}


def _train(profile: Profile, model: Module, idle: float = 0.0) -> None:
    """One step on an input that needs a gradient, with time lost at three places."""
    x = Tensor(np.array([1.0, -2.0], np.float32), requires_grad=True)
    with profile.step():
        clock.now += idle
        with profile.section("forward"):
            clock.now += 0.125
            loss = model(x).sum()
        with profile.section("backward"):
            loss.backward()
        with profile.section("optimizer.step"):
            clock.now += 0.75


# --- times --------------------------------------------------------------------------------


def test_times_of_a_nested_residual_model_add_up() -> None:
    with profiling(clock=clock) as profile:
        _train(profile, Sequential({"block": Residual(), "tail": Layered(4.0, 8.0)}), idle=0.0625)
    result = profile.result()
    got = {n: (x.forward.seconds, x.backward.seconds) for n, x in _layers(result).items()}
    assert got == {
        "block.body.a": (1.0, 3.0),
        "block.body.deep.0": (2.0, 5.0),
        "block:both": (0.5, 0.5),
        "tail": (4.0, 8.0),
        "sum_": (0.0, 0.0),
    }
    sections = {name: part.seconds for name, part in result.sections.items()}
    assert sections == {"forward": 0.125, "backward": 0.0, "optimizer.step": 0.75}
    assert result.layers_seconds == 24.0
    assert result.sections_seconds == 0.875
    assert result.unaccounted_seconds == 0.0625
    assert result.step_seconds == 24.0 + 0.875 + 0.0625


def test_medians_go_over_steps_and_a_layer_that_did_not_run_took_no_time() -> None:
    model = Layered(1.0, 0.0)
    with profiling(clock=clock) as profile:
        for seconds in (1.0, 9.0, 2.0):
            model.forward_seconds = seconds
            with profile.step():
                model(Tensor(np.ones(3, np.float32)))
                if seconds == 9.0:
                    work(np.ones(3, np.float32), forward=7.0, backward=0.0)
    result = profile.result()
    assert (result.steps, result.step_seconds) == (3, 2.0)
    assert _layers(result)["Layered"].forward.seconds == 2.0
    assert _layers(result)["work"].forward == Pass()


def test_a_layer_called_twice_is_one_row() -> None:
    shared = Layered(1.0, 2.0)
    with profiling(clock=clock) as profile:
        _train(profile, Sequential(shared, Sequential(shared)))
    row = _layers(profile.result())["0"]
    assert (row.forward.calls, row.forward.seconds) == (2, 2.0)
    assert (row.backward.calls, row.backward.seconds) == (2, 4.0)


def test_an_op_inside_of_an_op_counts_once() -> None:
    @op
    def outer(x: Any) -> Any:
        clock.now += 1.0
        return work(x, forward=2.0, backward=0.0).data, None

    with profiling(clock=clock) as profile, profile.step():
        outer(np.ones(2, np.float32))
    result = profile.result()
    assert {n: x.forward.seconds for n, x in _layers(result).items()} == {"work": 2.0, "outer": 1.0}
    assert result.unaccounted_seconds == 0


def test_a_step_that_fails_does_not_count_and_the_next_one_does() -> None:
    @op
    def fail(x: Any) -> Any:
        raise ValueError("no")

    with profiling(clock=clock) as profile:
        with pytest.raises(ValueError, match="no"), profile.step(), profile.section("forward"):
            fail(np.ones(2, np.float32))
        with profile.step(), pytest.raises(ValueError, match="no"), profile.section("forward"):
            fail(np.ones(2, np.float32))
        _train(profile, Layered(1.0, 2.0))
    result = profile.result()
    assert result.steps == 2
    assert "fail" not in _layers(result)


def test_steps_do_not_nest_and_no_step_is_an_error() -> None:
    with profiling(clock=clock) as profile:
        with pytest.raises(GraphError, match="at least one"):
            profile.result()
        with profile.step(), pytest.raises(GraphError, match="nest"), profile.step():
            pass


# --- work and memory ----------------------------------------------------------------------


def _quicknet() -> QuickNet:
    return QuickNet(stem=16, stages=(16, 32), blocks=2, rng=np.random.default_rng(0))


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_training_counts_the_macs_of_summary_three_times_but_for_the_first_layer(
    fused: bool,
) -> None:
    shape, images = (16, 15, 3), 4
    summary = summarize(_quicknet(), shape)
    macs = {layer.path: layer.macs for layer in summary.layers}
    with using("numpy"):
        result = profile_training(_quicknet(), (images, *shape), classes=10, steps=2, fused=fused)
    assert sum(layer.forward.macs for layer in result.layers) == images * summary.macs
    stem = macs["features.stem.conv"]
    assert stem > 0
    assert result.macs == images * (3 * summary.macs - stem)
    for layer in result.layers:
        forward = images * sum(macs.get(path, 0) for path in layer.paths)
        assert layer.forward.macs == forward, layer.label
        again = 1 if layer.label == "features.stem.conv" else 2
        assert layer.backward.macs == again * forward, layer.label
    labels = set(_layers(result))
    assert ("features.stem.norm+act+s1_1.conv.depthwise+pointwise" in labels) == fused
    assert ("features.s1_1.conv.depthwise" in labels) != fused
    assert {"features.stem.conv", "head.linear", "softmax_xent"} <= labels
    assert set(result.sections) == {
        "optimizer.zero_grad", "forward", "backward", "optimizer.step"
    }  # fmt: skip


def test_inference_counts_the_macs_of_summary_once_and_has_no_backward_pass() -> None:
    summary = summarize(_quicknet(), (16, 16, 3))
    with using("numpy"):
        result = profile_inference(_quicknet(), (3, 16, 16, 3), steps=1)
    assert result.macs == 3 * summary.macs
    assert all(layer.backward == Pass() for layer in result.layers)
    assert [layer.label for layer in result.layers] == [layer.path for layer in summary.layers]
    for found, expected in zip(result.layers, summary.layers, strict=True):
        if expected.kind in ("PReLU", "SeparableConv2d", "Conv2d", "PointwiseConv2d"):
            weights = 4 * expected.parameters
            maps = expected.moved_bytes - weights
            assert found.forward.moved_bytes == 3 * maps + weights


def test_bytes_are_each_array_given_saved_or_returned_once() -> None:
    m, k, n = 6, 5, 7
    net = Sequential(minidnn.Linear(k, n), minidnn.PReLU(n))
    x = Tensor(np.ones((m, k), np.float32), requires_grad=True)
    with using("numpy"), profiling() as profile, profile.step():
        (net(x).reshape(-1) * 3).sum().backward()
    rows = _layers(profile.result())
    y, w = m * n, k * n
    assert rows["0"].forward.moved_bytes == 4 * (m * k + w + n + y)
    # dx reads dy and w; dw reads dy and x; the bias' gradient reads dy.
    written = m * k + w + n
    assert rows["0"].backward.moved_bytes == 4 * (3 * y + w + m * k + written)
    assert rows["1"].backward.moved_bytes == 4 * (y + (y + n) + (y + n))
    assert rows["reshape"].forward.moved_bytes == rows["reshape"].backward.moved_bytes == 0


def test_rates_follow_from_time_macs_and_bytes() -> None:
    part = Pass(seconds=0.5, calls=1, macs=2 * 10**9, moved_bytes=3 * 10**9)
    assert (part.gflops, part.gbps) == (8.0, 6.0)
    assert (Pass().gflops, Pass().gbps) == (0.0, 0.0)


def test_blocks_of_the_arena_are_counted_where_they_are_taken() -> None:
    @op
    def taking(x: Any) -> Any:
        y = memory.empty((1 << 20,), np.float32)  # 4 MiB, a size of its own class

        def back(dy: Any) -> Any:
            blocks = [memory.empty((1 << 18,), np.float32) for _ in range(3)]
            return np.full_like(x, len(blocks))

        y.fill(x.sum())
        return y[:1], back

    memory.release()
    with profiling(clock=clock) as profile:
        for _ in range(3):
            with profile.step(), profile.section("both"):
                x = Tensor(np.ones(2, np.float32), requires_grad=True)
                taking(x).backward(np.ones(1, np.float32))
                del x
    first = profile._steps[0].layers
    assert [part.fresh_bytes for part in first.values()] == [4 << 20, 3 << 20]
    row = _layers(profile.result())["taking"]
    assert (row.forward.takes, row.forward.taken_bytes) == (1, 4 << 20)
    assert (row.backward.takes, row.backward.taken_bytes) == (3, 3 << 20)
    assert row.forward.fresh_bytes == row.backward.fresh_bytes == 0
    assert profile.result().sections["both"].takes == 0


def test_needed_memory_grows_with_the_batch_and_training_needs_more() -> None:
    net = Sequential(minidnn.Linear(100, 10), minidnn.PReLU(10))
    weights = 4 * (1000 + 10 + 10)
    assert needed_bytes(net, (8, 100), training=False) == weights + 8 * 4 * 110
    assert needed_bytes(net, (8, 100), training=True) == 4 * weights + 8 * 4 * 20


# --- off ----------------------------------------------------------------------------------


def test_off_asks_no_clock_and_on_changes_no_bit() -> None:
    def gradients(profile: Profile | None) -> list[Any]:
        net = _quicknet()
        x = Tensor(np.random.default_rng(1).standard_normal((2, 16, 16, 3)).astype(np.float32))
        minidnn.fuse(net, x.shape)
        if profile is None:
            minidnn.cross_entropy(net(x), np.array([1, 2])).backward()
        else:
            with profile.step():
                minidnn.cross_entropy(net(x), np.array([1, 2])).backward()
        return [p.grad for p in net.parameters()]

    with using("numpy"):
        with profiling(clock=clock) as profile:
            outside_of_a_step = gradients(None)
            assert clock.calls == 0
            on = gradients(profile)
            asked = clock.calls
        off = gradients(None)
    assert asked > 0
    assert clock.calls == asked
    for a, b, c in zip(on, off, outside_of_a_step, strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(a, c)


def test_off_means_the_ops_own_closure_and_no_trace_of_a_profile_that_failed() -> None:
    x = Tensor(np.ones(2, np.float32), requires_grad=True)
    tensors = []

    def fail() -> None:
        with profiling(clock=clock) as profile, profile.step():
            tensors.append(work(x, forward=0.0, backward=0.0))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    (wrapped,) = tensors
    calls = clock.calls
    plain = work(x, forward=0.0, backward=0.0)
    assert plain.node is not None
    assert wrapped.node is not None
    assert getattr(plain.node.backward, "__name__", "") == "back"
    assert getattr(wrapped.node.backward, "__name__", "") == "timed"
    wrapped.sum().backward()  # a closure that outlives its profile
    assert clock.calls == calls
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 2.0]


def test_another_thread_is_not_watched() -> None:
    with profiling(clock=clock) as profile, profile.step():
        calls = clock.calls
        thread = threading.Thread(
            target=lambda: work(np.ones(2, np.float32), forward=1, backward=1)
        )
        thread.start()
        thread.join()
        assert clock.calls == calls
    assert profile.result().layers == []


# --- the timeline -------------------------------------------------------------------------


def _spans(trace: Trace) -> list[dict[str, Any]]:
    return [event for event in json.loads(trace.text())["traceEvents"] if event["ph"] == "X"]


def test_the_timeline_holds_every_call_in_order_and_nested() -> None:
    trace = Trace("residual")
    with profiling(clock=clock, trace=trace) as profile:
        for _ in range(2):
            _train(profile, Residual(), idle=1.0)
    events = _spans(trace)
    names = [event["name"] for event in events]
    assert names[:5] == ["step 1", "forward", "body.a", "body.deep.0", "both"]
    assert names.count("body.a") == 4
    assert names.index("step 2") == len(names) // 2
    starts = [event["ts"] for event in events]
    assert starts == sorted(starts)
    assert starts[0] == 0
    a = next(event for event in events if event["name"] == "body.a")
    assert (a["ts"], a["dur"], a["cat"]) == (1.125e6, 1e6, "forward")
    assert (a["args"]["op"], a["args"]["macs"], a["args"]["bytes"]) == ("work", 20, 16)
    open_until: list[float] = []
    for event in events:
        while open_until and event["ts"] >= open_until[-1]:
            open_until.pop()
        end = event["ts"] + event["dur"]
        assert not open_until or end <= open_until[-1]
        open_until.append(end)
    assert trace.note is None
    assert json.loads(trace.text())["otherData"]["truncated"] is False


@pytest.mark.parametrize("limit", [LEAST, LEAST + 1, 3000, 10_000, 39_999])
def test_the_file_never_exceeds_its_limit_is_json_and_says_what_is_missing(limit: int) -> None:
    trace = Trace("a long one, ä", limit)
    for i in range(400):
        trace.add([Span(f"layer {i}", "forward", float(i), 0.5, {"macs": i})])
    text = trace.text()
    assert len(text.encode()) <= limit
    recorded = [event["name"] for event in _spans(trace)]
    assert recorded == [f"layer {i}" for i in range(len(recorded))]
    assert 0 < len(recorded) < 400
    assert trace.left_out == 400 - len(recorded)
    about = json.loads(text)["otherData"]
    assert (about["truncated"], about["left_out"]) == (True, trace.left_out)
    assert f"{trace.left_out} events left out" in about["note"]
    last = json.loads(text)["traceEvents"][-1]
    assert (last["ph"], last["name"]) == ("i", about["note"])
    # The next event would not have fitted.
    assert len(text) + 600 > limit


def test_a_limit_without_room_is_refused() -> None:
    with pytest.raises(InputError, match=r"at least 0\.002 MB"):
        Trace("x", LEAST - 1)


# --- the command --------------------------------------------------------------------------


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run ``minidnn profile`` without the compiler."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        with using("numpy"):
            code = main(["profile", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


SMALL = ("mlp", "--batch", "4", "--steps", "3", "--input-shape", "8x8x1", "--classes", "3")


def test_json_adds_up_and_names_its_settings(command: Any, tmp_path: Path) -> None:
    code, out, err = command("train", *SMALL, "--json", "-o", tmp_path / "p.json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["minidnn"], found["mode"], found["batch"], found["steps"]) == (
        "profile", "train", 4, 3
    )  # fmt: skip
    assert found["step_seconds"] > 0
    parts = ("layers_seconds", "sections_seconds", "unaccounted_seconds")
    assert sum(found[part] for part in parts) == pytest.approx(found["step_seconds"])
    assert sum(layer["seconds"] for layer in found["layers"]) == pytest.approx(
        found["layers_seconds"]
    )
    written = json.loads((tmp_path / "p.json").read_text())
    assert written["layers"] == found["layers"]


def test_the_table_shows_layers_and_what_is_unaccounted(command: Any) -> None:
    code, out, _ = command("infer", *SMALL)
    assert code == 0
    for text in ("fwd GF/s", "unaccounted", "whole step", "(forward, outside of layers)"):
        assert text in out


def test_the_trace_is_written_and_its_cut_is_told(command: Any, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.json", tmp_path / "cut.json"
    code, out, _ = command("train", *SMALL, "--trace", whole)
    assert code == 0
    assert "stopped recording" not in out
    assert json.loads(whole.read_text())["otherData"]["truncated"] is False
    code, out, _ = command("train", *SMALL, "--trace", cut, "--trace-limit", "0.0025")
    assert code == 0
    assert "stopped recording at the limit of 0.0025 MB" in out
    assert json.loads(cut.read_text())["otherData"]["truncated"] is True
    assert cut.stat().st_size <= 2500 < whole.stat().st_size
    assert {path.name for path in tmp_path.iterdir()} == {"whole.json", "cut.json"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "quicknets"], "did you mean 'quicknet'"),
        (["trian", "quicknet"], "did you mean 'train'"),
        (["train", "mlp", "--batch", "0"], "--batch: expected at least 1, got 0"),
        (["train", "mlp", "--steps", "-1"], "--steps: expected at least 1, got -1"),
        (["train", "mlp", "--trace-limit", "1"], "--trace FILE"),
        (["train", "mlp", "--trace", "t.json", "--trace-limit", "nan"], "--trace-limit"),
        (["train", "mlp", "--trace", "t.json", "--trace-limit", "0.001"], "at least 0.002 MB"),
        (["train", "mlp", "--trace", "no/such/t.json"], "a folder that exists"),
        (["train", "mlp", "--batch", "900000000"], "GB"),
        (["infer", "mlp", "--input-shape", "99999,99999,3"], "B of memory"),
        (["infer", "mlp", "--batch", "2", "--steps", "999999999"], "the limit is"),
        (["infer", "quicknet", "--input-shape", "8,8,3"], "leaves no pixel"),
    ],
)
def test_bad_input_is_one_line_exit_code_2_and_no_file(
    arguments: list[str],
    message: str,
    command: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
