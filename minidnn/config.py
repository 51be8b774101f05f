"""The resolved configuration of a run: every setting, in one checked dataclass.

A value comes from, in rising order of precedence: the default here, the recipe, a TOML file,
the command's options, and ``--set key=value``. Keys of the model's own arguments start with
``model.``, as in ``--set model.stem=32``; in TOML they stand in a table ``[model]``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minidnn.errors import ConfigError
from minidnn.kernels.ladder import unknown
from minidnn.recipes import RECIPES, default_recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_SEED = 2**63 - 1  # keys of the counter-based generators are 64 bits wide
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop")
FROM_DATA = ("num_classes", "input_shape", "rng")  # arguments of every network
SCHEDULES = (
    "constant", "step", "cosine", "one_cycle", "polynomial", "linear", "keras_decay",
)  # fmt: skip


def _setting(
    default: Any,
    text: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    below: float = math.inf,
    choices: Iterable[str] = (),
    free: bool = False,
) -> Any:
    """Describe one setting; `free` ones change no result, so a resume may change them.

    Numbers are at least `low`, at most `high`, and less than `below`.
    """
    metadata = {
        "help": text, "low": low, "high": high, "below": below,
        "choices": tuple(choices), "free": free,
    }  # fmt: skip
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Config:
    """Every setting of a run; the texts beside the fields say what each means.

    Raises
    ------
    ConfigError
        If a value has the wrong type, is out of range, or is none of the choices.
    """

    model: str = _setting("quicknet", "network, see `minidnn summary --help`")
    data: str = _setting("shapes", "shapes, cifar10, cifar100, folder:PATH or FILE.npz")
    data_dir: str = _setting("", "folder of the data set; empty: the download cache", free=True)
    size: int = _setting(32, "height and width that pictures of a folder are brought to", low=1)
    recipe: str = _setting("quick", "where the defaults come from", choices=RECIPES)
    protocol: str = _setting(
        "official", "official split, or the paper's", choices=("official", "paper")
    )
    val: int = _setting(0, "images held out to choose the best epoch; 0: a tenth", low=0)
    limit: int = _setting(0, "train on at most so many images; 0: all", low=0)
    seed: int = _setting(0, "of weights, order, augmentation and dropout", low=0, high=MAX_SEED)
    init_from: str = _setting("", "run whose weights to start from")
    epochs: int = _setting(30, "how often every training image is seen", low=1)
    batch_size: int = _setting(128, "images per step", low=1)
    optimizer: str = _setting("sgd", "update rule", choices=OPTIMIZERS)
    lr: float = _setting(0.1, "highest learning rate", low=0)
    momentum: float = _setting(0.9, "of SGD and RMSProp", low=0, below=1)
    nesterov: bool = _setting(True, "look-ahead momentum, SGD only")
    weight_decay: float = _setting(5e-4, "on full kernels and matrices alone", low=0)
    clip_norm: float = _setting(0.0, "largest norm of all gradients; 0: no clipping", low=0)
    schedule: str = _setting("cosine", "course of the learning rate", choices=SCHEDULES)
    warmup: float = _setting(0.0, "share of all steps that lr rises to its height", low=0, high=1)
    final_lr: float = _setting(0.0, "last learning rate as a share of lr", low=0)
    decay: float = _setting(0.0, "of schedule keras_decay, per step", low=0)
    step_epochs: float = _setting(30.0, "of schedule step: epochs between drops", low=0)
    step_factor: float = _setting(0.1, "of schedule step: factor of one drop", low=0)
    label_smoothing: float = _setting(
        0.0, "share of the target spread over all classes", low=0, high=1
    )
    ema: float = _setting(0.0, "decay of the moving average of weights; 0: none", low=0, below=1)
    patience: int = _setting(0, "stop after so many epochs without a better one; 0: never", low=0)
    pad: int = _setting(0, "pad by so many pixels, then crop at random", low=0)
    pad_mode: str = _setting("reflect", "what padding holds", choices=("reflect", "zero", "edge"))
    flip: str = _setting(
        "random", "mirror left to right", choices=("random", "alternating", "none")
    )
    shift: float = _setting(
        0.0, "shift by up to this share of the side, instead of pad", low=0, below=1
    )
    cutout: int = _setting(0, "side of a square erased at random", low=0)
    fuse: bool = _setting(True, "join layers that share memory; off: every layer on its own")
    report_test: bool = _setting(False, "report on the test set after each epoch")
    log_steps: int = _setting(50, "a line in the log every so many steps", low=1)
    checkpoint_seconds: float = _setting(60.0, "between checkpoints", low=0, free=True)
    checkpoint_steps: int = _setting(0, "checkpoint every so many steps too", low=0, free=True)
    arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for f in SETTINGS.values():
            _check(f, getattr(self, f.name))
        for name, value in self.arguments.items():
            if not name.isidentifier():
                raise ConfigError(f"model.{name}: expected a name, as in model.stem")
            if name in FROM_DATA:
                raise ConfigError(f"model.{name}: follows from data and seed, cannot be set")
            if isinstance(value, dict):
                raise ConfigError(f"model.{name}: expected a number, text or list, got a table")

    def to_dict(self) -> dict[str, Any]:
        """Return key -> value, model arguments as ``model.<name>``: what `from_dict` reads."""
        flat = {name: getattr(self, name) for name in SETTINGS}
        return flat | {f"model.{name}": value for name, value in self.arguments.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """Make a configuration of key -> value; keys that are left out keep their default."""
        settings: dict[str, Any] = {}
        arguments: dict[str, Any] = {}
        for key, value in values.items():
            if key.startswith("model."):
                arguments[key.removeprefix("model.")] = value
            elif key not in SETTINGS:
                raise ConfigError(unknown("setting", key, [*SETTINGS, "model.<argument>"]))
            else:
                is_whole = isinstance(value, int) and not isinstance(value, bool)
                settings[key] = float(value) if is_whole and _kind(key) is float else value
        return cls(**settings, arguments=arguments)

    def to_toml(self) -> str:
        """Return the text of a file that ``--config`` reads back to this configuration."""
        lines = ["# Every setting of this run; start another with it: minidnn train --config FILE"]
        for name, f in SETTINGS.items():
            if name != "model":
                lines.append(f"{name} = {_toml(getattr(self, name))}  # {f.metadata['help']}")
        lines += ["", "[model]", f"name = {_toml(self.model)}"]
        lines += [f"{name} = {_toml(value)}" for name, value in self.arguments.items()]
        return "\n".join(lines) + "\n"


SETTINGS: dict[str, dataclasses.Field[Any]] = {
    f.name: f for f in dataclasses.fields(Config) if f.name != "arguments"
}


def _kind(key: str) -> Any:
    return type(SETTINGS[key].default)


def _check(f: dataclasses.Field[Any], value: Any) -> None:
    kind, choices = _kind(f.name), f.metadata["choices"]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(
            f"{f.name}: expected {_NAMES[kind]} ({f.metadata['help']}), got {value!r}"
        )
    if choices and value not in choices:
        raise ConfigError(unknown(f.name, value, choices))
    if kind in (int, float):
        _check_range(f, value)


def _check_range(f: dataclasses.Field[Any], value: float) -> None:
    low, high, below = (f.metadata[name] for name in ("low", "high", "below"))
    if low <= value <= high and value < below:  # NaN and infinity fail
        return
    upper = f" and less than {below}" if below < math.inf else ""
    upper = f" and at most {high}" if high < math.inf else upper
    raise ConfigError(
        f"{f.name}: expected at least {low}{upper} ({f.metadata['help']}), got {value!r}"
    )


_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _toml(value: Any) -> str:
    """Write one value; JSON's text is TOML's for all that a setting can be."""
    return json.dumps(value, ensure_ascii=False)


# --- from a user's words ----------------------------------------------------------------


def parse_assignment(text: str) -> tuple[str, Any]:
    """Return key and value of ``key=value``; the value is read as TOML, or taken as text.

    Raises
    ------
    ConfigError
        If there is no ``=``.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set: expected key=value, got {text!r}")
    key, value = key.strip(), value.strip()
    if key in SETTINGS and _kind(key) is str:
        return key, value.strip("\"'")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def read_toml(path: Path) -> dict[str, Any]:
    """Return the settings in a TOML file, a table ``[model]`` as ``model`` and ``model.<name>``.

    Raises
    ------
    ConfigError
        If the file is missing or not TOML, or has a table of another name.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"--config {path}: {error}") from error
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key == "model" and isinstance(value, dict):
            values |= {"model" if n == "name" else f"model.{n}": v for n, v in value.items()}
        else:
            values[key] = value
    return values


def resolve(given: Mapping[str, Any]) -> Config:
    """Put a user's settings on the recipe they name, or on their data's default recipe.

    Parameters
    ----------
    given : mapping
        Settings from file, options and assignments, already merged.

    Raises
    ------
    ConfigError
        If a key or value is unknown, with the nearest known one.
    """
    data = given.get("data", SETTINGS["data"].default)
    recipe = given.get("recipe", default_recipe(str(data)))
    if recipe not in RECIPES:
        raise ConfigError(unknown("recipe", str(recipe), RECIPES))
    model = given.get("model", SETTINGS["model"].default)
    base = dict(RECIPES[recipe])
    if not str(model).startswith(("quicknet", "plain_cnn")):  # an mlp knows no dropout
        base = {key: value for key, value in base.items() if not key.startswith("model.")}
    # One of the two moves the picture: a user's choice takes the place of the recipe's.
    for one, other in (("pad", "shift"), ("shift", "pad")):
        if given.get(one) and other not in given:
            base.pop(other, None)
    return Config.from_dict({"recipe": recipe, **base, **given})


def differences(run: Config, given: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return key -> (value of the run, value given) where a resume asks for other settings.

    Settings that change no result (`data_dir`, `checkpoint_seconds`, ...) are left out.
    """
    own = run.to_dict()
    Config.from_dict({**own, **given})  # unknown names and wrong types first
    return {
        key: (own.get(key), value)
        for key, value in given.items()
        if own.get(key) != value and not (key in SETTINGS and SETTINGS[key].metadata["free"])
    }
