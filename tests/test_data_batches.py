"""Batches and augmentation: repeatable, resumable, independent of order and threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from minidnn.data import Augment, Batches, Dataset, channel_statistics
from minidnn.errors import ConfigError, DataError, InputError, ShapeError
from minidnn.kernels import augment as kernel
from minidnn.kernels.ladder import using

Array = Any
AUGMENT = Augment(pad=2, pad_mode="reflect", flip="random", cutout=3)


def _dataset(n: int = 50, size: int = 8, channels: int = 3) -> Dataset:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (n, size, size, channels), dtype=np.uint8)
    return Dataset(images, rng.integers(0, 4, n), ["a", "b", "c", "d"], "made")


@pytest.fixture(autouse=True)
def no_thread_stays_behind() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def _all(batches: Batches, epoch: int, start: int = 0) -> list[tuple[Array, Array]]:
    return list(batches.epoch(epoch, start))


def _same(a: list[tuple[Array, Array]], b: list[tuple[Array, Array]]) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(x, u) and np.array_equal(y, v) for (x, y), (u, v) in zip(a, b, strict=True)
    )


def test_order_and_pictures_repeat_and_change_with_seed_and_epoch() -> None:
    one = Batches(_dataset(), batch_size=8, seed=5, augment=AUGMENT)
    other = Batches(_dataset(), batch_size=8, seed=5, augment=AUGMENT, prefetch=False)
    assert _same(_all(one, 0), _all(other, 0))
    assert not _same(_all(one, 0), _all(one, 1))
    assert not _same(_all(one, 0), _all(Batches(_dataset(), batch_size=8, seed=6), 0))


@pytest.mark.parametrize("start", [0, 1, 5, 6])
def test_epoch_can_be_entered_at_any_batch(start: int) -> None:
    batches = Batches(_dataset(), batch_size=8, seed=5, augment=AUGMENT)
    assert _same(_all(batches, 3, start), _all(batches, 3)[start:])


def test_a_picture_looks_the_same_in_any_batch_of_an_epoch() -> None:
    batches = Batches(_dataset(), batch_size=7, seed=5, augment=AUGMENT)
    together, _ = batches.take(np.arange(50), epoch=2)
    shuffled = np.random.default_rng(0).permutation(50)
    again, labels = batches.take(shuffled, epoch=2)
    assert np.array_equal(again, together[shuffled])
    assert np.array_equal(labels, batches.dataset.labels[shuffled])
    for i in (0, 49):
        assert np.array_equal(batches.take(np.array([i]), epoch=2)[0][0], together[i])
    assert not np.array_equal(batches.take(np.arange(50), epoch=1)[0], together)


def test_training_drops_the_short_batch_and_evaluation_keeps_it() -> None:
    dataset = _dataset(50)
    train = Batches(dataset, batch_size=8)
    held = Batches(dataset, batch_size=8, shuffle=False)
    assert [len(y) for _, y in train.epoch()] == [8] * 6
    assert len(train) == 6
    assert [len(y) for _, y in held.epoch()] == [8] * 6 + [2]
    assert len(held) == 7
    assert np.array_equal(np.concatenate([y for _, y in held.epoch()]), dataset.labels)


def test_every_picture_comes_once_an_epoch() -> None:
    batches = Batches(_dataset(50), batch_size=8, seed=1, drop_last=False)
    for epoch in range(3):
        assert np.array_equal(np.sort(batches.order(epoch)), np.arange(50))
        assert sum(len(y) for _, y in batches.epoch(epoch)) == 50


def test_batches_are_normalised_by_the_statistics_of_their_pictures() -> None:
    batches = Batches(_dataset(64), batch_size=64)
    ((x, labels),) = batches.epoch()
    assert x.dtype == np.float32
    assert x.flags.c_contiguous
    assert labels.dtype == np.int64
    assert np.allclose(x.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    assert np.allclose(x.std(axis=(0, 1, 2)), 1, atol=1e-5)


def test_channel_statistics_agree_with_float64() -> None:
    images = _dataset(2500, 4, 2).images
    mean, std = channel_statistics(images)
    assert np.allclose(mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-6)
    assert np.allclose(std, (images / 255).std(axis=(0, 1, 2)), rtol=1e-6)
    mean, std = channel_statistics(np.full((3, 2, 2, 1), 51, np.uint8))
    assert mean.tolist() == pytest.approx([0.2])
    assert std.tolist() == [1.0]


def test_one_image_batches_work() -> None:
    batches = Batches(_dataset(3), batch_size=1, augment=AUGMENT)
    assert [x.shape for x, _ in batches.epoch()] == [(1, 8, 8, 3)] * 3
    single = Batches(_dataset(1, size=1), batch_size=1, augment=Augment(pad=0))
    assert [x.shape for x, _ in single.epoch()] == [(1, 1, 1, 3)]


def test_closing_early_ends_the_thread() -> None:
    batches = Batches(_dataset(), batch_size=2)
    with closing(batches.epoch()) as epoch:
        next(epoch)
        assert any(t.name.startswith("minidnn-batches") for t in threading.enumerate())
    assert not any(t.name.startswith("minidnn-batches") for t in threading.enumerate())


def test_an_exception_in_the_thread_reaches_the_consumer() -> None:
    batches = Batches(_dataset(), batch_size=2)
    batches.mean = batches.mean[:2]
    with pytest.raises(ShapeError, match="mean"):
        _all(batches, 0)


def test_thread_sees_the_rung_chosen_by_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    naive = kernel.forward.rungs["naive"]

    def spy(*args: Any, **settings: Any) -> Any:
        calls.append(threading.current_thread().name)
        return naive(*args, **settings)

    monkeypatch.setitem(kernel.forward.rungs, "naive", spy)
    with using("naive"):
        _all(Batches(_dataset(), batch_size=25), 0)
    assert len(calls) == 2
    assert all(name.startswith("minidnn-batches") for name in calls)


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"batch_size": 51}, {"batch_size": 4, "seed": -1}], ids=str
)
def test_wrong_settings_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=list(wrong)[-1]):
        Batches(_dataset(50), **wrong)


@pytest.mark.parametrize("wrong", [{"epoch": -1}, {"start": 7}, {"start": -1}], ids=str)
def test_epoch_out_of_range_is_named(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Batches(_dataset(50), batch_size=8).epoch(**wrong)


# --- augmentation ---------------------------------------------------------------------------


def _poses(n: int = 4000, **settings: Any) -> Array:
    return kernel.poses(np.arange(n), seed=9, size=(32, 32), **{"epoch": 0, **settings})


def test_crops_are_spread_evenly() -> None:
    pose = _poses(reach=(4, 2))
    for axis, reach in ((0, 4), (1, 2)):
        counts = np.bincount(pose[:, axis] + reach)
        assert len(counts) == 2 * reach + 1
        expected = 4000 / len(counts)
        assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))
    assert abs(np.corrcoef(pose[:, 0], pose[:, 1])[0, 1]) < 0.06


def test_flips_hit_half_and_change_between_epochs() -> None:
    first, second = _poses(flip="random")[:, 2], _poses(flip="random", epoch=1)[:, 2]
    assert abs(first.mean() - 0.5) < 0.04
    assert abs(np.mean(first == second) - 0.5) < 0.04
    assert not _poses()[:, 2].any()


def test_alternating_flips_turn_over_in_every_epoch() -> None:
    flips = [_poses(flip="alternating", epoch=epoch)[:, 2] for epoch in range(4)]
    assert abs(flips[0].mean() - 0.5) < 0.04
    assert np.array_equal(flips[1], 1 - flips[0])
    assert np.array_equal(flips[2], flips[0])
    assert np.array_equal(flips[3], flips[1])


def test_cutout_lies_inside_and_reaches_every_corner() -> None:
    pose = _poses(cutout=8)
    assert pose[:, 3:].min() == 0
    assert pose[:, 3:].max() == 24


def test_shift_is_a_fraction_of_the_size_with_edges_repeated() -> None:
    settings = Augment(pad=0, shift=0.1)
    assert settings.fill == "edge"
    pose = settings.poses(np.arange(1000), seed=0, epoch=0, size=(32, 64))
    assert (pose[:, 0].min(), pose[:, 0].max()) == (-3, 3)
    assert (pose[:, 1].min(), pose[:, 1].max()) == (-6, 6)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"pad_mode": "reflekt"}, "did you mean 'reflect'"),
        ({"flip": "randomly"}, "did you mean 'random'"),
        ({"pad": -1}, "pad"),
        ({"cutout": -1}, "cutout"),
        ({"pad": 0, "shift": 1.0}, "shift"),
        ({"pad": 2, "shift": 0.1}, "both move"),
    ],
    ids=str,
)
def test_wrong_augmentation_is_named(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Augment(**settings)


@pytest.mark.parametrize("settings", [{"pad": 8}, {"cutout": 9}], ids=str)
def test_augmentation_larger_than_the_picture_is_named(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="8x8"):
        Batches(_dataset(), batch_size=8, augment=Augment(**settings))


def test_kernel_rejects_what_does_not_fit() -> None:
    dataset = _dataset()
    index, mean, std = np.arange(4), np.zeros(3, np.float32), np.ones(3, np.float32)
    pose = np.zeros((4, 5), np.int64)
    good = (dataset.images, index, pose, mean, std)
    kernel.forward(*good)
    wrong: list[tuple[int, Any]] = [
        (0, dataset.images.astype(np.float32)),
        (0, dataset.images[0]),
        (0, dataset.images[:, ::2]),
        (1, index + 47),
        (1, index - 1),
        (1, index.astype(np.int32)),
        (2, pose[:3]),
        (2, pose + 8),
        (3, mean[:2]),
        (3, np.zeros(3, np.int64)),
        (4, std * 0),
        (4, std.astype(np.float64)),
    ]
    for position, value in wrong:
        arguments = [*good]
        arguments[position] = value
        with pytest.raises(InputError):
            kernel.forward(*arguments)
    with pytest.raises(InputError, match="fill"):
        kernel.forward(*good, fill="mirror")
    with pytest.raises(InputError, match="cutout"):
        kernel.forward(*good, cutout=-1)
    with pytest.raises(InputError, match="flip"):
        kernel.poses(index, seed=0, epoch=0, size=(8, 8), flip="both")
    with pytest.raises(InputError, match="cutout"):
        kernel.poses(index, seed=0, epoch=0, size=(8, 8), cutout=9)


# --- data sets ------------------------------------------------------------------------------


def test_dataset_says_what_is_wrong() -> None:
    good = _dataset()
    images, labels, classes = good.images, good.labels, good.classes
    wrong: list[tuple[Any, Any, str]] = [
        (images.astype(np.float32), labels, "uint8"),
        (images[0], labels, "uint8"),
        (images[:0], labels[:0], "at least one image"),
        (images[:, ::2], labels, "contiguous"),
        (images, labels.astype(np.int32), "int64"),
        (images, labels[:-1], "one label per image"),
        (images, labels - 1, "label of image"),
        (images, labels + 3, "expected 0 to 3"),
    ]
    for wrong_images, wrong_labels, text in wrong:
        with pytest.raises(DataError, match=text):
            Dataset(wrong_images, wrong_labels, classes, "made")


def test_subset_and_first_pick_pictures() -> None:
    dataset = _dataset()
    index = np.array([4, 0, 4])
    assert np.array_equal(dataset.subset(index).images, dataset.images[index])
    assert np.array_equal(dataset.first(3).labels, dataset.labels[:3])
    assert len(dataset.first(None)) == len(dataset.first(1000)) == 50
    with pytest.raises(DataError, match="limit"):
        dataset.first(0)
