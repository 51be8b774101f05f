"""The generated pictures: repeatable, balanced, hard for lines and easy for outlines."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from minidnn.data import draw_shapes
from minidnn.errors import ConfigError, InputError


def test_picture_depends_on_seed_split_and_index_alone() -> None:
    whole = draw_shapes("train", count=600)
    part = draw_shapes("train", count=70, start=230)
    assert np.array_equal(part.images, whole.images[230:300])
    assert np.array_equal(part.labels, whole.labels[230:300])
    assert np.array_equal(draw_shapes("train", count=600).images, whole.images)


def test_splits_and_seeds_give_other_pictures() -> None:
    sets = [
        draw_shapes("train", count=500),
        draw_shapes("test", count=500),
        draw_shapes("train", count=500, seed=1),
    ]
    hashes = {hashlib.sha256(image.tobytes()).digest() for s in sets for image in s.images}
    assert len(hashes) == 1500


def test_pictures_have_the_declared_form_and_every_class_equally_often() -> None:
    dataset = draw_shapes("test", count=1000)
    assert dataset.images.shape == (1000, 32, 32, 3)
    assert dataset.images.dtype == np.uint8
    assert len(dataset.classes) == 10
    assert np.bincount(dataset.labels).tolist() == [100] * 10
    # Light and dark figures alike: no class has a brightness of its own.
    brightness = [dataset.images[dataset.labels == c].mean() for c in range(10)]
    assert max(brightness) - min(brightness) < 25


def test_one_picture_can_be_drawn() -> None:
    assert len(draw_shapes("train", count=1, start=249)) == 1


@pytest.mark.parametrize(
    "wrong", [{"split": "val"}, {"count": 0}, {"start": -1}, {"seed": -1}], ids=str
)
def test_wrong_arguments_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        draw_shapes(**wrong)
    assert issubclass(ConfigError, InputError)


def test_linear_classifier_on_the_pixels_stays_below_30_percent() -> None:
    train, test = draw_shapes("train", count=8000), draw_shapes("test")
    x = train.images.reshape(len(train), -1).astype(np.float32) / 255
    centre = x.mean(axis=0)
    x -= centre
    unseen = test.images.reshape(len(test), -1).astype(np.float32) / 255 - centre
    targets = np.eye(10, dtype=np.float32)[train.labels] - np.float32(0.1)
    gram, moment = x.T @ x, x.T @ targets
    accuracies = []
    for ridge in (10.0, 1e3, 1e4, 1e5):
        weights = np.linalg.solve(gram + np.float32(ridge) * np.eye(3072, dtype=np.float32), moment)
        accuracies.append(float(np.mean((unseen @ weights).argmax(axis=1) == test.labels)))
    assert max(accuracies) < 0.3, accuracies
    # The same classifier does learn: it knows the pictures it was fitted to far better.
    assert np.mean((x @ weights).argmax(axis=1) == train.labels) > 0.12
