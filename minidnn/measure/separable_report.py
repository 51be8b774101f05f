"""What `minidnn profile-separable` measures, prints, writes and draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minidnn.errors import ConfigError
from minidnn.kernels.ladder import unknown
from minidnn.measure import rivals, separable
from minidnn.measure.limits import check_memory, check_time
from minidnn.measure.peaks import Peaks
from minidnn.measure.rivals import ACTIVATIONS, MODES, NETWORKS, Activation, EndToEnd
from minidnn.measure.separable import FASTEST, FLOAT, PASSES, TAPS, Layer, Times, counts
from minidnn.measure.shapes import SIZES, Map
from minidnn.measure.tables import Table
from minidnn.plots import new_figure

BATCH, QUICK_BATCH = 64, 16
MOST_SECONDS = 1200.0
# Of the peak that a long run of convolutions surely reaches, for the estimate of its time.
USUAL = 0.3
PASSES_OF_TRAINING = 3  # forward, and both gradients
TENSORS = 8  # arrays as large as a map that a step of training holds per layer, at most


@dataclass(frozen=True)
class Profile:
    """Everything that was measured.

    Attributes
    ----------
    batch : int
    quick : bool
    layers : dict
        Separable layer -> level -> pass -> times.
    activations : dict
        Map -> pass -> times.
    networks : dict
        "training", "inference" -> QuickNet against plain_cnn.
    peaks : Peaks
    """

    batch: int
    quick: bool
    layers: dict[Layer, Times]
    activations: dict[Map, dict[str, Activation]]
    networks: dict[str, EndToEnd]
    peaks: Peaks

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts, for JSON."""
        return {
            "batch": self.batch,
            "quick": self.quick,
            "batches": separable.levels(self.batch),
            "peaks": {"flops": self.peaks.flops, "bandwidth": self.peaks.bandwidth},
            "layers": [self._layer(layer) for layer in self.layers],
            "all_layers": {
                level: {name: self._whole(level, name) for name in PASSES}
                for level in separable.levels(1)
            },
            "activations": [
                {"map": at.label, **{name: one._asdict() for name, one in found.items()}}
                for at, found in self.activations.items()
            ],
            "networks": {mode: one._asdict() for mode, one in self.networks.items()},
        }

    def _layer(self, layer: Layer) -> dict[str, Any]:
        counted = {
            kind: {
                name: counts(layer, self.batch, full=kind == "full", forward=name == "forward")
                for name in PASSES
            }
            for kind in ("separable", "full")
        }
        return {
            "layer": layer.label,
            **layer._asdict(),
            "predicted": layer.predicted,
            "counts": {
                kind: {name: one._asdict() for name, one in both.items()}
                for kind, both in counted.items()
            },
            "levels": {
                level: {name: one._asdict() for name, one in both.items()}
                for level, both in self.layers[layer].items()
            },
            "why": {name: self.why(layer, name) for name in PASSES},
        }

    def _whole(self, level: str, name: str) -> dict[str, float]:
        found = separable.whole(self.layers, level, name)
        return {**found._asdict(), "ratio": found.ratio}

    def why(self, layer: Layer, name: str) -> str:
        """Return why the fastest rungs' ratio is not the predicted one."""
        found = self.layers[layer][FASTEST][name]
        return separable.why(layer, name, found, self.batch, self.peaks)


def profile(
    peaks: Peaks,
    *,
    size: str = "full",
    batch: int | None = None,
    quick: bool = False,
    tell: Callable[[str], object] = lambda what: None,
) -> Profile:
    """Measure separable against full convolutions, and what stands around them.

    Parameters
    ----------
    peaks : Peaks
        This machine's.
    size : {"classroom", "stages", "full"}
        Which of QuickNet's layers.
    batch : int, optional
        Images; 64, or 16 if quick.
    quick : bool
        Fewer images and fewer turns.
    tell : callable
        Told what is measured next.

    Raises
    ------
    ConfigError
        If the size is unknown or the batch below 1.
    InputError
        If memory or time would not do.
    """
    if size not in SIZES:
        raise ConfigError(unknown("size", size, SIZES))
    batch = (QUICK_BATCH if quick else BATCH) if batch is None else batch
    if batch < 1:
        raise ConfigError(f"batch: expected at least 1, got {batch}")
    shapes = SIZES[size]
    chosen = separable.layers(shapes)
    rounds = separable.TURNS[FASTEST][1 if quick else 0]
    _check(chosen, batch, rounds, peaks)
    measured = {}
    for layer in chosen:
        tell(f"convolutions {layer.label}")
        measured[layer] = separable.measure(layer, batch, quick=quick)
    around = {}
    for at in shapes.activation:
        tell(f"activations {at.label}")
        around[at] = rivals.activations(at, batch, measured, rounds=rounds)
    tell(f"{' against '.join(NETWORKS)}")
    small = size == "classroom"
    networks = rivals.end_to_end(batch, small=small, rounds=3 if quick else 5)
    return Profile(batch, quick, measured, around, networks, peaks)


def _check(chosen: list[Layer], batch: int, rounds: int, peaks: Peaks) -> None:
    """Refuse what would not fit the memory or take too long."""
    what = f"profile-separable at batch {batch}"
    maps = sum(x.times * x.size**2 * (x.c_in + x.c_out) for x in chosen)
    weights = sum(x.times * TAPS * x.c_in * x.c_out for x in chosen)
    check_memory(FLOAT * TENSORS * (batch * maps + weights), what)
    macs = sum(x.times * counts(x, 1, full=True, forward=True).macs for x in chosen)
    # The layers one by one, then the whole network.
    flops = 2 * 2 * macs * batch * PASSES_OF_TRAINING
    seconds = (rounds + 1) * flops / (USUAL * peaks.flops)
    check_time(seconds, MOST_SECONDS, what)


# --- tables ------------------------------------------------------------------------------


def tables(found: Profile) -> list[Table]:
    """Return everything as tables."""
    return [
        _counts(found),
        *(_times(found, name) for name in PASSES),
        *(_activations(found, name) for name in PASSES),
        _networks(found),
    ]


def texts(found: Profile) -> list[str]:
    """Return the sentences under the tables."""
    sentences = [found.why(layer, name) for layer in found.layers for name in PASSES]
    return ["\n".join(sentences), separable.MORAL]


def _counts(found: Profile) -> Table:
    rows = []
    for layer in found.layers:
        few, many, few_back, many_back = (
            counts(layer, found.batch, full=full, forward=forward)
            for forward in (True, False)
            for full in (False, True)
        )
        rows.append(
            [
                layer.label,
                str(layer.times),
                f"{few.macs / 1e6:,.4g}",
                f"{many.macs / 1e6:,.4g}",
                f"{layer.predicted:.3f}",
                f"{few.parameters:,}",
                f"{many.parameters:,}",
                *(f"{one.least_bytes / 1e6:.3g}" for one in (few, many, few_back, many_back)),
            ]
        )
    pairs = ("separable", "full")
    columns = [
        "layer",
        "times",
        *(f"10^6 MACs {kind}" for kind in pairs),
        "ratio",
        *(f"parameters {kind}" for kind in pairs),
        *(f"MB {kind}" for kind in pairs),
        *(f"MB back {kind}" for kind in pairs),
    ]
    title = (
        "counts per image: the ratio of MACs, forward, backward, and of parameters is "
        f"1/Cout + 1/9; least bytes at batch {found.batch}"
    )
    return Table(title, columns, rows)


def _times(found: Profile, name: str) -> Table:
    levels = separable.levels(found.batch)
    rows = []
    for layer, times in found.layers.items():
        row = [layer.label, f"{layer.predicted:.3f}"]
        for level in levels:
            one = times[level][name]
            row += [_ms(one.separable), _ms(one.full), f"{one.ratio.median:.3f}"]
        rows.append([*row, f"{one.ratio.low:.3f} to {one.ratio.high:.3f}"])
    totals = [separable.whole(found.layers, level, name) for level in levels]
    row = ["all, each as often as there", f"{totals[0].predicted:.3f}"]
    for total in totals:
        row += [_ms(total.separable), _ms(total.full), f"{total.ratio:.3f}"]
    rows.append(row)
    columns = ["layer", "predicted"]
    for level in levels:
        columns += [f"{level} ms", "full ms", "ratio"]
    shown = ", ".join(f"{level} {images}" for level, images in levels.items())
    title = f"{name}: ms per image, separable, full, and their ratio (images at a time: {shown})"
    return Table(title, [*columns, "95 %"], rows)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}"


def _activations(found: Profile, name: str) -> Table:
    rows = []
    for at, both in found.activations.items():
        one = both[name]
        shares = [
            "-" if share is None else f"{share:.1%}" for share in (one.of_separable, one.of_full)
        ]
        speeds = [f"{one.gbs[kernel]:.3g}" for kernel in ACTIVATIONS]
        times = [f"{1e6 * one.seconds[kernel]:.3g}" for kernel in ACTIVATIONS]
        rows.append([at.label, *times, *speeds, str(one.prelu_over_leaky), *shares])
    columns = [
        "map",
        *(f"{kernel} us" for kernel in ACTIVATIONS),
        *(f"{kernel} GB/s" for kernel in ACTIVATIONS),
        "prelu / leaky",
        "prelu / separable",
        "prelu / full",
    ]
    return Table(f"activations {name}: per image, batch {found.batch}", columns, rows)


def _networks(found: Profile) -> Table:
    rows = [
        [
            mode,
            *(f"{found.networks[mode].rates[name]:,.4g}" for name in NETWORKS),
            str(found.networks[mode].ratio),
            f"{found.networks[mode].predicted:.3f}",
        ]
        for mode in MODES
    ]
    columns = ["", *(f"{name} images/s" for name in NETWORKS), "time ratio", "MACs ratio"]
    return Table(f"whole networks, batch {found.batch}", columns, rows)


# --- picture -----------------------------------------------------------------------------


def draw(found: Profile, path: Path, *, title: str = "") -> None:
    """Draw predicted and measured ratios as bars into a PNG file.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    groups = [layer.label for layer in found.layers]
    figure = new_figure(max(9.0, 2.5 + 1.2 * len(groups)), 8)
    for axis, name in zip(figure.subplots(2, 1), PASSES, strict=True):
        bars = dict(_bars(found, name))
        width = 0.8 / len(bars)
        for i, (label, heights) in enumerate(bars.items()):
            left = [g + (i - (len(bars) - 1) / 2) * width for g in range(len(heights))]
            colour = "lightgrey" if label == "predicted" else None
            drawn = axis.bar(left, heights, width, label=label, color=colour)
            axis.bar_label(drawn, fmt="%.2f", fontsize=7, rotation=90, padding=2)
        mode = "inference" if name == "forward" else "training"
        names = [*groups, "all layers", f"network,\n{mode}"]
        axis.set_xticks(range(len(names)), names, fontsize="small")
        axis.set_ylabel("separable / full")
        axis.set_title(f"{name}: time of separable over full 3x3 convolution (lower is better)")
        axis.margins(y=0.18)
        axis.grid(axis="y", alpha=0.3)
        axis.set_axisbelow(True)
        axis.legend(ncols=len(bars), fontsize="small", loc="upper right")
    figure.suptitle(title, size="small")
    figure.savefig(path, dpi=120)


def _bars(found: Profile, name: str) -> Iterator[tuple[str, list[float]]]:
    """Yield a name and heights: layers, their sum and, of the fastest, the whole network."""
    network = found.networks["inference" if name == "forward" else "training"]
    sums = {level: separable.whole(found.layers, level, name) for level in separable.levels(1)}
    layers = [layer.predicted for layer in found.layers]
    yield "predicted", [*layers, sums[FASTEST].predicted, network.predicted]
    for level, total in sums.items():
        heights = [times[level][name].ratio.median for times in found.layers.values()]
        end = [network.ratio.median] if level == FASTEST else []
        yield level, [*heights, total.ratio, *end]
