"""What `minidnn profile-separable` measures, prints, writes and reads again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minidnn.measure import results, rivals, separable
from minidnn.measure.limits import check_memory, check_time
from minidnn.measure.peaks import Peaks, as_json, from_json
from minidnn.measure.ratios import Ratio
from minidnn.measure.rivals import ACTIVATIONS, MODES, NETWORKS, Activation, EndToEnd
from minidnn.measure.saved import Saved
from minidnn.measure.separable import FASTEST, FLOAT, PASSES, TAPS, Layer, Pass, Times, counts
from minidnn.measure.shapes import Map, images_of, shapes_of
from minidnn.measure.tables import Table

KIND = "profile-separable"  # of files
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
            "peaks": as_json(self.peaks),
            "layers": [self._layer(layer) for layer in self.layers],
            "all_layers": {
                level: {name: self._whole(level, name) for name in PASSES}
                for level in separable.levels(1)
            },
            "activations": [
                {
                    "map": at.label,
                    **at._asdict(),
                    **{name: one._asdict() for name, one in found.items()},
                }
                for at, found in self.activations.items()
            ],
            "networks": {mode: one._asdict() for mode, one in self.networks.items()},
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any], where: str = "profile") -> Profile:
        """Return what `as_dict` wrote, also through a file; what follows from it is left out.

        Raises
        ------
        InputError
            If a key is missing or holds something else; it names the place, from `where` on.
        """
        saved = Saved(found, where)
        return cls(
            batch=saved["batch"].count(),
            quick=saved["quick"].flag(),
            layers={_read_layer(one): _read_times(one["levels"]) for one in saved["layers"].each()},
            activations={
                Map(*(one[key].count() for key in Map._fields)): {
                    name: _read_activation(one[name]) for name in PASSES
                }
                for one in saved["activations"].each()
            },
            networks={mode: _read_network(saved["networks"][mode]) for mode in MODES},
            peaks=_read_peaks(saved["peaks"]),
        )

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
    shapes, batch = shapes_of(size), images_of(batch, QUICK_BATCH if quick else BATCH)
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


# --- from a file -------------------------------------------------------------------------


def read(path: Path) -> tuple[Profile, dict[str, Any]]:
    """Read what `minidnn profile-separable -o` wrote: the profile, and the whole file.

    Raises
    ------
    InputError
        If it is another file, of another version, or incomplete.
    """
    result = results.read(path, KIND)
    machine = Saved(result, str(path))["machine"]
    for key in ("date", "cpu", "python"):
        machine[key].text()
    machine["threads"].count()
    if not isinstance(machine["affinity"].value, list | type(None)):
        raise machine["affinity"].wrong("a list of CPUs")
    if not isinstance(machine["versions"].value, dict):
        raise machine["versions"].wrong("versions by package")
    return Profile.from_dict(result, str(path)), result


def _read_layer(saved: Saved) -> Layer:
    return Layer(*(saved[key].count() for key in Layer._fields))


def _read_times(saved: Saved) -> Times:
    levels = separable.levels(1)
    return {level: {name: _read_pass(saved[level][name]) for name in PASSES} for level in levels}


def _read_pass(saved: Saved) -> Pass:
    few, thin, many = (saved[key].number() for key in ("separable", "depthwise", "full"))
    return Pass(few, thin, many, _read_ratio(saved["ratio"]))


def _read_ratio(saved: Saved) -> Ratio:
    return Ratio(*(one.number() for one in saved.each(len(Ratio._fields))))


def _read_activation(saved: Saved) -> Activation:
    of_separable, of_full = (
        None if saved[key].value is None else saved[key].number()
        for key in ("of_separable", "of_full")
    )
    return Activation(
        _read_each(saved["seconds"], ACTIVATIONS),
        _read_each(saved["gbs"], ACTIVATIONS),
        _read_ratio(saved["prelu_over_leaky"]),
        of_separable,
        of_full,
    )


def _read_network(saved: Saved) -> EndToEnd:
    rates = _read_each(saved["rates"], NETWORKS)
    return EndToEnd(rates, _read_ratio(saved["ratio"]), saved["predicted"].number())


def _read_each(saved: Saved, names: Sequence[str]) -> dict[str, float]:
    return {name: saved[name].number() for name in names}


def _read_peaks(saved: Saved) -> Peaks:
    try:
        return from_json(saved.value)
    except (KeyError, TypeError, ValueError):
        raise saved.wrong("the peaks of a machine") from None


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


def caption(found: Profile, machine: Mapping[str, Any]) -> str:
    """Return what stands under the picture: the sums, the whole network, the machine."""
    ahead, back = (separable.whole(found.layers, FASTEST, name) for name in PASSES)
    plain = [separable.whole(found.layers, "naive", name).ratio for name in PASSES]
    often = {mode: 1 / found.networks[mode].ratio.median for mode in MODES}
    number = sum(layer.times for layer in found.layers)
    return (
        f"All separable layers together ({number}) do {ahead.predicted:.3f} of the "
        f"multiply-accumulates of full convolutions, and take {ahead.ratio:.3f} of their time "
        f"forward and {back.ratio:.3f} backward in the fastest rungs, {plain[0]:.3f} and "
        f"{plain[1]:.3f} in naive loops. The whole network trains {often['training']:.1f} times "
        f"as fast as with full convolutions, and is {often['inference']:.1f} times as fast at "
        f"inference. {place(machine)}."
    )


def place(machine: Mapping[str, Any]) -> str:
    """Return CPU, threads and day of a measurement."""
    return f"{machine['cpu']}, {machine['threads']} threads, {machine['date'][:10]}"


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
