"""Learning-rate schedules: endpoints, warm-up, purity, and equality with torch's."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from minidnn import schedules
from minidnn.errors import ConfigError


@pytest.mark.parametrize(
    ("rate", "last"),
    [
        (schedules.constant(0.4, warmup_steps=4), 0.4),
        (schedules.cosine(0.4, total_steps=20, final=0.1, warmup_steps=4), 0.1),
        (schedules.polynomial(0.4, total_steps=20, power=2, warmup_steps=4), 0.0),
        (schedules.linear(0.4, total_steps=20, final=0.02, warmup_steps=4), 0.02),
        (schedules.step_decay(0.4, every=16, warmup_steps=4), 0.04),
        (schedules.keras_decay(0.4, decay=0.5, warmup_steps=4), 0.4 / 9),
    ],
)
def test_warm_up_rises_evenly_to_the_peak_and_the_end_is_exact(rate: Any, last: float) -> None:
    assert [rate(t) for t in range(5)] == pytest.approx([0.08, 0.16, 0.24, 0.32, 0.4])
    assert rate(20) == pytest.approx(last)


@pytest.mark.parametrize(
    "rate", [schedules.cosine(1, total_steps=9), schedules.linear(1, total_steps=9)]
)
def test_rates_fall_and_stay_at_the_end(rate: Any) -> None:
    rates = [rate(t) for t in range(10)]
    assert all(a > b for a, b in itertools.pairwise(rates))
    assert rate(10) == rate(9) == rate(10**6) == 0


def test_a_rate_depends_on_the_step_alone() -> None:
    rate = schedules.one_cycle(0.2, total_steps=50)
    forward = [rate(t) for t in range(50)]
    assert [rate(t) for t in reversed(range(50))] == forward[::-1]


def test_one_cycle_has_its_three_corners() -> None:
    rate = schedules.one_cycle(1.0, total_steps=21, rise=1 / 3, div_factor=10, final_div_factor=50)
    assert (rate(0), rate(6), rate(20)) == pytest.approx((0.1, 1.0, 0.002))
    assert rate(25) == rate(20)


def test_step_decay_drops_at_the_named_steps() -> None:
    rate = schedules.step_decay(1.0, every=[3, 5], gamma=0.5)
    assert [rate(t) for t in range(7)] == [1, 1, 1, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    "build",
    [
        lambda: schedules.constant(-1),
        lambda: schedules.constant(float("nan")),
        lambda: schedules.constant(1, warmup_steps=-1),
        lambda: schedules.cosine(1, total_steps=5, warmup_steps=5),
        lambda: schedules.cosine(1, total_steps=0),
        lambda: schedules.step_decay(1, every=0),
        lambda: schedules.one_cycle(1, total_steps=2),
        lambda: schedules.one_cycle(1, total_steps=50, rise=1.0),
        lambda: schedules.one_cycle(1, total_steps=50, anneal="cosine"),
        lambda: schedules.one_cycle(1, total_steps=50, div_factor=0),
        lambda: schedules.keras_decay(1, decay=-1),
        lambda: schedules.constant(1)(-1),
    ],
)
def test_bad_settings_are_named_errors(build: Any) -> None:
    with pytest.raises(ConfigError, match="schedule: "):
        build()


def _torch_rates(scheduler: Any, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [
        (
            schedules.cosine(0.3, total_steps=30, final=0.01),
            "CosineAnnealingLR",
            {"T_max": 30, "eta_min": 0.01},
        ),
        (
            schedules.polynomial(0.3, total_steps=20, power=1.7),
            "PolynomialLR",
            {"total_iters": 20, "power": 1.7},
        ),
        (
            schedules.linear(0.3, total_steps=20, final=0.03),
            "LinearLR",
            {"start_factor": 1.0, "end_factor": 0.1, "total_iters": 20},
        ),
        (
            schedules.constant(0.3, warmup_steps=9),
            "LinearLR",
            {"start_factor": 0.1, "total_iters": 9},
        ),
        (schedules.step_decay(0.3, every=7, gamma=0.2), "StepLR", {"step_size": 7, "gamma": 0.2}),
        (schedules.step_decay(0.3, every=[4, 11]), "MultiStepLR", {"milestones": [4, 11]}),
        (
            schedules.one_cycle(0.3, total_steps=30),
            "OneCycleLR",
            {"max_lr": 0.3, "total_steps": 30},
        ),
        (
            schedules.one_cycle(0.3, total_steps=30, rise=0.4, anneal="linear"),
            "OneCycleLR",
            {"max_lr": 0.3, "total_steps": 30, "pct_start": 0.4, "anneal_strategy": "linear"},
        ),
    ],
)
def test_equals_torch(ours: Any, theirs: str, settings: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    scheduler = getattr(torch.optim.lr_scheduler, theirs)(optimizer, **settings)
    want = _torch_rates(scheduler, 29)
    assert [ours(t) for t in range(29)] == pytest.approx(want, rel=1e-6, abs=1e-12)
