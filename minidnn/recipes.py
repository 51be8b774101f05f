"""Training recipes as data: what differs from the defaults in `minidnn.config.Config`.

``paper``
    QuickNet (Ghosh 2017, arXiv:1701.02291, section 4): dropout 0.5, batch norm, cross-entropy,
    54,000 images to train on and 6,000 of all 60,000 held out, best epoch kept. The text does
    not name the optimiser; these are the settings of the Keras example of that time
    (keras-team/keras, examples/cifar10_cnn.py, late 2016), with Keras' batch norm and initial
    weights (glorot-uniform).
``standard``
    What most CIFAR results are reported with: He et al. 2015, section 4.2, with a cosine.
``fast``
    Thirty epochs, after the speed-run habits of Page 2018 and Jordan 2024 (arXiv:2404.00498).
``quick``
    Two minutes on two cores: few images, enough for `shapes`.
"""

from __future__ import annotations

from typing import Any

RECIPES: dict[str, dict[str, Any]] = {
    "paper": {
        "protocol": "paper",
        "val": 6000,
        "epochs": 200,
        "batch_size": 32,
        "lr": 0.01,
        "schedule": "keras_decay",
        "decay": 1e-6,
        "weight_decay": 0.0,
        "pad": 0,
        "shift": 0.1,
        "model.dropout": 0.5,
        "model.bn_eps": 1e-3,
        "model.bn_momentum": 0.01,  # Keras calls it 0.99
        "model.weights": "glorot",
    },
    "standard": {
        "epochs": 200,
        "batch_size": 128,
        "lr": 0.1,
        "schedule": "cosine",
        "warmup": 0.005,
        "weight_decay": 5e-4,
        "pad": 4,
        "pad_mode": "zero",
    },
    "fast": {
        "epochs": 30,
        "batch_size": 128,
        "lr": 0.2,
        "schedule": "linear",
        "warmup": 0.2,
        "final_lr": 0.05,
        "weight_decay": 5e-4,
        "label_smoothing": 0.1,
        "pad": 4,
        "pad_mode": "reflect",
        "flip": "alternating",
        "cutout": 8,
        "ema": 0.995,
        "model.dropout": 0.0,
    },
    "quick": {
        "epochs": 4,
        "batch_size": 32,
        "limit": 2000,
        "val": 500,
        "lr": 0.05,
        "schedule": "linear",
        "warmup": 0.2,
        "weight_decay": 5e-4,
        "pad": 2,
        "pad_mode": "reflect",
        "model.dropout": 0.0,
    },
}


def default_recipe(data: str) -> str:
    """Return the recipe for a data set where the user names none."""
    return "quick" if data == "shapes" else "fast"
