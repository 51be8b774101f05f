"""Fine-tuning with codes: the folded network, straight-through gradients, and what it gains."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

import minidnn as nn
from minidnn.errors import ConfigError, InputError, NonFiniteError, ShapeError
from minidnn.gradcheck import check_gradients
from minidnn.kernels.int8 import quantise_weights
from minidnn.models import MODELS, build
from minidnn.plan.compiler import Plan
from minidnn.plan.folding import fold, simplify
from minidnn.plan.lowering import lower
from minidnn.plan.program import Codes, Program
from minidnn.quantization.calibration import calibrate
from minidnn.quantization.finetune import (
    Folded,
    fake_quantize,
    finetune,
    straight_through,
)
from minidnn.quantization.quantizer import quantise
from tests.test_plan import CHAINS, LAYERS, SMALL, Branches, WithOps, _images, _settled

NETWORKS: dict[str, tuple[Any, tuple[int, ...]]] = {
    **LAYERS,
    **{name: (make, shape) for name, (make, shape, _) in CHAINS.items()},
    "branches": (Branches, (6, 7, 3)),
    "ops of the engine": (WithOps, (5, 5, 3)),
}
for model_name in MODELS:
    NETWORKS[model_name] = (
        lambda name=model_name: build(
            name,
            num_classes=5,
            input_shape=(21, 21, 3),
            rng=np.random.default_rng(0),
            **SMALL[name],
        ),
        (21, 21, 3),
    )


def _program(name: str) -> Program:
    make, shape = NETWORKS[name]
    return simplify(lower(_settled(make()), shape))


def _outputs(found: Any) -> tuple[Any, ...]:
    found = found if isinstance(found, tuple) else (found,)
    return tuple(y.data if isinstance(y, nn.Tensor) else y for y in found)


def _run(network: nn.Module, x: Any) -> tuple[Any, ...]:
    with nn.no_grad():
        return _outputs(network(nn.Tensor(x)))


# --- the folded network ---------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_without_codes_a_folded_network_computes_what_the_plan_does(name: str) -> None:
    program = _program(name)
    x = _images(3, program.input_shape)
    for got, want in zip(_run(Folded(program), x), _outputs(Plan(program)(x)), strict=True):
        assert got.shape == want.shape
        assert got.dtype == np.float32
        largest = np.abs(want).max(initial=0)
        assert np.abs(got - want).max(initial=0) <= 2e-5 * max(largest, 1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_program_comes_back_as_it_was(name: str) -> None:
    program = _program(name)
    found = Folded(program).program()
    assert (found.sizes, found.outputs) == (program.sizes, program.outputs)
    for got, want in zip(found.steps, program.steps, strict=True):
        assert (got.kind, got.inputs, got.output) == (want.kind, want.inputs, want.output)
        assert got.arrays.keys() == want.arrays.keys()
        for key, array in want.arrays.items():
            assert got.arrays[key].shape == array.shape
            assert np.array_equal(got.arrays[key], array.astype(np.float32))
            assert not np.shares_memory(got.arrays[key], array)
    x = _images(2, program.input_shape)
    for y, same in zip(_outputs(Plan(found)(x)), _outputs(Plan(program)(x)), strict=True):
        assert np.array_equal(y, same)


TRAINED = [*MODELS, "branches", "conv grouped", "activation before the norm"]


@pytest.mark.parametrize("name", [*TRAINED])
def test_every_number_can_be_trained(name: str) -> None:
    network = Folded(_program(name))
    x = nn.Tensor(_images(4, network.source.input_shape))
    outputs = network(x)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    total = (outputs[0] * outputs[0]).sum()
    for y in outputs[1:]:
        total = total + (y * y).sum()
    total.backward()
    for path, parameter in network.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.any(), path


def test_a_slope_of_zeros_stays_a_relu() -> None:
    network = Folded(
        simplify(lower(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), (5, 5, 3)))
    )
    assert [path for path, _ in network.named_parameters()] == ["steps.0.weight", "steps.0.bias"]
    assert not network.program().steps[0].arrays["slope"].any()


def test_gradients_without_codes_agree_with_finite_differences() -> None:
    network = Folded(_program("branches")).astype(np.float64)
    check_gradients(network, np.random.default_rng(3).standard_normal((2, 6, 7, 3)))


# --- with codes -----------------------------------------------------------------------------


def _codes(program: Program, n: int = 16) -> dict[int, Codes]:
    return calibrate(program, [_images(n, program.input_shape, seed=5)])


def test_fake_numbers_are_those_of_the_8_bit_kernels() -> None:
    from minidnn.kernels import dequantize, quantize

    x = _images(5, (7, 6)) * np.float32(40)
    settings: dict[str, Any] = {"scale": 0.21, "zero": 101}
    want = dequantize.forward(quantize.forward(x, **settings), **settings)
    got = fake_quantize(nn.Tensor(x), **settings).data
    assert np.array_equal(got, want)


def test_the_gradient_passes_inside_the_range_and_nowhere_else() -> None:
    codes = Codes(0.5, 3)  # from -1.5 to 126
    x = np.array([-9, -1.76, -1.74, 0, 0.3, 126.2, 126.3, 1e9, np.inf], np.float32)
    tensor = nn.Parameter(x)
    y = fake_quantize(tensor, scale=codes.scale, zero=codes.zero)
    assert y.data.tolist() == [-1.5, -1.5, -1.5, 0, 0.5, 126, 126, 126, 126]
    (y * nn.Tensor(np.arange(1, 10, dtype=np.float32))).sum().backward()
    assert tensor.grad is not None
    assert tensor.grad.tolist() == [0, 0, 3, 4, 5, 6, 0, 0, 0]


def test_weights_and_biases_pass_the_whole_gradient() -> None:
    w = nn.Parameter(_images(3, (5,)))
    integers, scales = quantise_weights(w.data)
    dy = _images(3, (5,), seed=9)
    y = straight_through(w, rounded=integers * scales)
    assert np.array_equal(y.data, integers * scales)
    (y * nn.Tensor(dy)).sum().backward()
    assert w.grad is not None
    assert np.array_equal(w.grad, dy)


@pytest.mark.parametrize("name", ["quicknet", "branches", "separable with biases"])
def test_every_coded_value_is_on_its_codes_and_logits_are_not(name: str) -> None:
    program = _program(name)
    codes = _codes(program)
    network = Folded(program, codes)
    seen: list[tuple[Any, tuple[nn.Tensor, ...]]] = []
    for part in network.steps:
        part.register_forward_hook(lambda layer, inputs, y: seen.append((layer, inputs)))
    outputs = _run(network, _images(3, program.input_shape))
    found = {program.input}
    for layer, inputs in seen:
        for value, x in zip(layer.step.inputs, inputs, strict=True):
            if value not in network.codes:
                continue
            found.add(value)
            one = codes[value]
            q = x.data / np.float32(one.scale) + one.zero
            assert np.abs(q - np.rint(q)).max() < 1e-4
            assert q.min() > -0.001
            assert q.max() < 255.001
    assert found >= {step.inputs[0] for step in program.steps if step.kind != "copy"} - {
        step.output for step in program.steps if step.kind == "largest"
    }
    logits = outputs[0] / codes[program.outputs[0][0]].scale
    assert np.abs(logits - np.rint(logits)).max() > 1e-3


@pytest.mark.parametrize("name", ["quicknet", "plain_cnn", "branches", "max pool ceil", "mlp"])
def test_the_loss_is_that_of_the_8_bit_plan(name: str) -> None:
    program = _program(name)
    codes, x = _codes(program), _images(5, program.input_shape)
    real = _outputs(quantise(program, codes).plan()(x))
    plain = _outputs(Plan(program)(x))
    for fake, got, want in zip(_run(Folded(program, codes), x), real, plain, strict=True):
        assert np.linalg.norm(fake - got) < 0.2 * np.linalg.norm(got - want)


def test_steps_that_are_kept_are_not_rounded() -> None:
    program = _program("quicknet")
    x = _images(3, program.input_shape)
    every = range(len(program.steps))
    (got,), (want,) = (
        _run(n, x) for n in (Folded(program, _codes(program), every), Folded(program))
    )
    assert np.array_equal(got, want)
    network = Folded(program, _codes(program), every[1:])
    assert list(network.codes) == [program.input]
    assert [layer.seen is not None for layer in network.steps] == [i == 0 for i in every]


def test_codes_cost_little_where_they_fit() -> None:
    program = _program("quicknet")
    x = _images(8, program.input_shape, seed=5)
    (want,), (got,) = _run(Folded(program), x), _run(Folded(program, _codes(program)), x)
    noise = np.linalg.norm(got - want) / np.linalg.norm(want)
    assert 1e-4 < noise < 0.1


def test_the_largest_of_codes_is_not_rounded_again() -> None:
    program = simplify(lower(nn.MaxPool2d(3, 2).eval(), (7, 7, 3)))
    fine, coarse = Codes(0.02, 128), Codes(0.5, 128)
    step = program.steps[0]
    network = Folded(program, {program.input: fine, step.output: coarse})
    assert list(network.codes) == [program.input]


class Oracle:
    """A product, PReLU, a mean over pixels and logits on codes, by hand and in float64."""

    def __init__(self, program: Program, codes: dict[int, Codes]) -> None:
        self.first, self.mean, self.last = program.steps
        self.codes = codes

    def rounded(self, x: Any, value: int) -> tuple[Any, Any]:
        one = self.codes[value]
        q = np.rint(x / one.scale) + one.zero
        return (np.clip(q, 0, 255) - one.zero) * one.scale, (q >= 0) & (q <= 255)

    def weights(self, step: Any) -> tuple[Any, Any]:
        w, b = (step.arrays[name].astype(np.float64) for name in ("matrix", "bias"))
        t = np.abs(w).max(axis=0) / 127
        unit = t * self.codes[step.inputs[0]].scale
        return np.rint(w / t) * t, np.rint(b / unit) * unit

    def gradients(self, x: Any, g: Any) -> tuple[Any, dict[str, Any]]:
        """Return logits, and the gradients of sum(g * logits)."""
        (w, b), (v, c) = self.weights(self.first), self.weights(self.last)
        s = self.first.arrays["slope"].astype(np.float64)
        n, pixels = len(x), x.shape[1] * x.shape[2]
        x0, _ = self.rounded(x.astype(np.float64).reshape(n, pixels, -1), self.first.inputs[0] or 0)
        z = x0 @ w + b
        a, in_a = self.rounded(np.where(z > 0, z, s * z), self.first.output)
        m, in_m = self.rounded(a.mean(axis=1), self.mean.output)
        logits = m @ v + c
        dm = (g @ v.T) * in_m
        da = np.repeat(dm[:, None] / pixels, pixels, axis=1) * in_a
        dz = np.where(z > 0, da, s * da)
        return logits, {
            "steps.0.weight": np.einsum("npk,npc->kc", x0, dz),
            "steps.0.bias": dz.sum(axis=(0, 1)),
            "steps.0.slope": (np.minimum(z, 0) * da).sum(axis=(0, 1)),
            "steps.2.weight": m.T @ g,
            "steps.2.bias": g.sum(axis=0),
        }


def test_straight_through_gradients_agree_with_those_by_hand() -> None:
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.PointwiseConv2d(5, 17, bias=True, rng=rng), nn.PReLU(17),
                          nn.GlobalAvgPool2d(), nn.Linear(17, 4, rng=rng))  # fmt: skip
    program = simplify(lower(_settled(model), (6, 5, 5)))
    # Narrow ranges, so that much is cut off.
    found = _codes(program)
    codes = {v: Codes(0.4 * c.scale if v != program.input else c.scale, c.zero)
             for v, c in found.items()}  # fmt: skip
    network = Folded(program, codes)
    x, g = _images(7, (6, 5, 5)), _images(7, (4,), seed=8)
    want, gradients = Oracle(program, codes).gradients(x, g.astype(np.float64))
    logits = network(nn.Tensor(x))
    (logits * nn.Tensor(g)).sum().backward()
    assert np.abs(logits.data - want).max() < 1e-5 * np.abs(want).max()
    parameters = dict(network.named_parameters())
    assert parameters.keys() == gradients.keys()
    for path, slope in gradients.items():
        got = parameters[path].grad
        assert got is not None
        assert np.abs(got.reshape(slope.shape) - slope).max() < 2e-5 * np.abs(slope).max(), path


# --- training -------------------------------------------------------------------------------


def _batches(epoch: int) -> Iterator[tuple[Any, Any]]:
    """Yield pictures of stripes in four directions, the same in every epoch."""
    rng = np.random.default_rng(1)
    down, right = np.mgrid[:12, :12]
    for _ in range(6):
        labels, phase = rng.integers(0, 4, 32), rng.uniform(0, 6.3, (32, 1, 1))
        angle = np.pi / 4 * labels[:, None, None]
        waves = np.sin(1.3 * (down * np.sin(angle) + right * np.cos(angle)) + phase)
        noise = rng.standard_normal((32, 12, 12, 3))
        yield (waves[..., None] + noise).astype(np.float32), labels


@cache
def _trained() -> Program:
    """Train a small network in float32, by fine-tuning it without codes."""
    rng = np.random.default_rng(1)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 5, rng=rng), nn.PReLU(8), nn.SeparableConv2d(8, 16, rng=rng), nn.PReLU(16),
        nn.MaxPool2d(2), nn.GlobalAvgPool2d(), nn.Linear(16, 4, rng=rng),
    )  # fmt: skip
    program = simplify(lower(model.eval(), (12, 12, 3)))
    return finetune(program, {}, _batches, epochs=20, steps_per_epoch=6, lr=6e-2)


def _coarse(program: Program) -> dict[int, Codes]:
    """Return codes of which three or four are in use."""
    found = calibrate(program, (x for x, _ in _batches(0)), "minmax")
    return {value: Codes(90 * one.scale, one.zero) for value, one in found.items()}


def _loss(program: Program, codes: dict[int, Codes]) -> float:
    network, losses = Folded(program, codes), []
    with nn.no_grad():
        for x, labels in _batches(0):
            losses.append(nn.cross_entropy(network(nn.Tensor(x)), labels).item())
    return float(np.mean(losses))


def test_fine_tuning_wins_back_what_coarse_codes_cost_and_more_than_training_without() -> None:
    program = _trained()
    codes = _coarse(program)
    assert _loss(program, {}) < 0.05
    before = _loss(program, codes)
    assert before > 0.2
    after, without = (
        _loss(finetune(program, seen, _batches, epochs=4, lr=1e-2), codes) for seen in (codes, {})
    )
    assert after < 0.6 * before
    assert after < 0.8 * without


def test_fine_tuning_repeats_bit_for_bit_and_leaves_its_program_alone() -> None:
    program = _trained()
    kept = [{k: a.copy() for k, a in step.arrays.items()} for step in program.steps]
    codes = _coarse(program)
    one, other = (finetune(program, codes, _batches, epochs=1) for _ in range(2))
    for a, b, before, step in zip(one.steps, other.steps, kept, program.steps, strict=True):
        for key, array in a.arrays.items():
            assert np.array_equal(array, b.arrays[key])
            assert np.array_equal(step.arrays[key], before[key])
        assert "matrix" not in before or not np.array_equal(a.arrays["matrix"], before["matrix"])


def test_progress_is_told_after_every_step() -> None:
    told: list[tuple[int, int]] = []

    def progress(epoch: int, step: int, loss: float) -> None:
        assert np.isfinite(loss)
        told.append((epoch, step))

    finetune(_trained(), {}, lambda epoch: list(_batches(epoch))[:3], epochs=2,
             progress=progress)  # fmt: skip
    assert told == [(0, 1), (0, 2), (0, 3), (1, 4), (1, 5), (1, 6)]


# --- what is refused ------------------------------------------------------------------------


def _one_batch(n: int = 4, shape: tuple[int, ...] = (3,), labels: Any = None) -> Any:
    def batches(epoch: int) -> Iterator[Any]:
        yield _images(n, shape), np.arange(n) % 2 if labels is None else labels

    return batches


def _linear() -> Program:
    return simplify(lower(_settled(nn.Linear(3, 2)), (3,)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"epochs": 0}, "epochs: expected at least 1"), ({"lr": -1.0}, "lr: expected"),
     ({"batches_of_epoch": lambda epoch: []}, "at least one batch"),
     ({"codes": {99: Codes(1.0, 0)}}, "no value 99"),
     ({"program": _program("branches")}, r"expected one output, logits \(N, K\)")],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    given = {"program": _linear(), "codes": {}, "batches_of_epoch": _one_batch(), "epochs": 1}
    with pytest.raises(ConfigError, match=message):
        finetune(**{**given, **settings})


def test_a_program_that_is_not_simplified_is_refused() -> None:
    program = fold(lower(_settled(nn.SeparableConv2d(5, 33)), (5, 4, 5)))
    with pytest.raises(ConfigError, match="expected a step of a simplified program"):
        Folded(program)


def test_batches_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"expected images of shape \(N, 3\)"):
        finetune(_linear(), {}, _one_batch(shape=(4,)), epochs=1)
    with pytest.raises(InputError, match="label"):
        finetune(_linear(), {}, _one_batch(labels=np.array([0, 1, 2, 0])), epochs=1)


def test_a_loss_that_is_not_a_number_stops_the_training() -> None:
    x = np.full((4, 3), np.nan, np.float32)
    with pytest.raises(NonFiniteError, match="loss is nan at step 1"):
        finetune(_linear(), {}, lambda epoch: [(x, np.zeros(4, np.int64))], epochs=1)
