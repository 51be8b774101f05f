"""Who takes part in `bench.peers`, as data: how to start each side and what it needs."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

import minidnn

OURS = "minidnn"
PLAN = "minidnn_plan"
INT8 = "minidnn_int8"


class Peer(NamedTuple):
    """How to start a side.

    Attributes
    ----------
    module : str
    arguments : tuple of str
        For the module's command line.
    cache : str, optional
        The variable that says where it keeps compiled code.
    needs : tuple of str
        Packages that must be installed.
    engine : bool
        It only infers, reads files that `bench.side_convert` writes, and first tries which of
        several ways is its fastest.
    spare : bool
        A comparison goes on without it if it does not run here.
    """

    module: str
    arguments: tuple[str, ...] = ()
    cache: str | None = None
    needs: tuple[str, ...] = ()
    engine: bool = False
    spare: bool = False


TORCH = {
    f"{how}_{layout}": Peer(
        "bench.side_torch", (how, layout), cache, ("torch",), spare=how == "compile"
    )
    for how, cache in (("eager", None), ("compile", "TORCHINDUCTOR_CACHE_DIR"))
    for layout in ("nchw", "channels_last")
}
# onnxruntime folds batch norm and calibrates for both engines' int8.
ENGINES = {
    f"{engine}_{precision}": Peer(
        f"bench.side_{engine}",
        (precision,),
        needs=("onnx", *dict.fromkeys((engine, "onnxruntime"))),
        engine=True,
        spare=True,
    )
    for engine in ("openvino", "onnxruntime")
    for precision in ("float32", "int8")
}
MODES = {**TORCH, **ENGINES}
PEERS = {
    **{
        name: Peer("bench.side_minidnn", (how,), "MINIDNN_CACHE_DIR")
        for name, how in ((OURS, "module"), (PLAN, "plan"), (INT8, "int8"))
    },
    **MODES,
}
TRAINING_MODES = ("eager_nchw", "eager_channels_last", "compile_channels_last")
INFERENCE_MODES = (*TRAINING_MODES, *ENGINES)


class Settings(NamedTuple):
    """What is compared."""

    what: str
    network: str
    batch: int
    rounds: int
    threads: int
    modes: tuple[str, ...]
    cold: bool = True
    turn: float = 1.0
    calls: int = 200  # of a turn, where single calls are timed


def ours(what: str) -> tuple[str, ...]:
    """Return minidnn's own ways to do it."""
    if what == "train":
        return (OURS,)
    return (OURS, PLAN, INT8) if "quantize" in minidnn.__all__ else (OURS, PLAN)


def is_int8(name: str) -> bool:
    """Tell whether a side computes a quantised network."""
    return name.endswith("int8")


def missing(name: str) -> str | None:
    """Return why a side cannot run here, as a sentence, or None if nothing is missing."""
    absent = [package for package in PEERS[name].needs if importlib.util.find_spec(package) is None]
    if not absent:
        return None
    return (
        f"{name} is left out: it needs {' and '.join(absent)}, not installed; "
        "try: python -m pip install '.[peers]'"
    )
