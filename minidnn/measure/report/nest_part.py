"""The report's sixth section: loop nests, product by product; page.js moves it."""

from __future__ import annotations

import inspect

from minidnn.measure.report import access
from minidnn.measure.report.access import CHANNELS, LINE, NESTS, SIZE, TAPS, Nest, Order
from minidnn.measure.report.markup import Html, join, prose, radios, table, tag
from minidnn.measure.tables import Table

SHOWN = 20  # products in the table


def section() -> Html:
    """Return the orders in which two nests touch memory."""
    return join(
        [
            prose(
                f"A depthwise {TAPS}x{TAPS} convolution of a {SIZE}x{SIZE} map with a border of "
                "zeros, as two rungs compute it. Both make the same products; only the loop "
                "over channels stands elsewhere. Channels of a pixel are neighbours in memory "
                f"(NHWC), and memory comes in cache lines of {LINE} numbers. The orders are "
                "those of the kernels: their loops ran on arrays that note every access.",
                *map(sentence, CHANNELS),
                "So small a map stays in the first-level cache either way. What the second "
                "order wins is that neighbours can share one vector instruction. Its price: it "
                "adds to y in memory with every product, where the first keeps a sum in a "
                "register; the next rung, border, has both.",
            ),
            _stepper(),
            table(_jumps()),
            *(table(_first(channels)) for channels in CHANNELS[:1]),
            *map(_source, NESTS),
        ]
    )


def sentence(channels: int) -> str:
    """Return what the orders differ in."""
    orders = {nest.name: access.order(nest, channels) for nest in NESTS}
    said = " and ".join(f"{access.jumps(one.x):,} times in {name}" for name, one in orders.items())
    total = len(next(iter(orders.values())).x)
    return f"With {channels} channels, {total:,} products: x changes to another cache line {said}."


def _stepper() -> Html:
    buttons = [
        tag("button", text, type="button", id=f"nest-{name}")
        for name, text in (("back", "Back"), ("next", "Next"), ("play", "Play"))
    ]
    slider = tag(
        "label",
        "product ",
        tag("input", type="range", id="nest-step", min=0, value=0, max=0),
    )
    channels = radios("channels", "nest-channels", [str(c) for c in CHANNELS])
    panes = [_pane(nest) for nest in NESTS]
    return tag(
        "div",
        tag("div", channels, slider, *buttons, class_="picker"),
        tag("div", *panes, class_="panes"),
        id="nest",
        class_="scripted",
    )


def _pane(nest: Nest) -> Html:
    lines = [f"{'  ' * depth}for {loop}: " for depth, loop in enumerate(nest.loops)]
    code = [
        join([line, tag("b", "", data_loop=loop), "\n"], "")
        for line, loop in zip(lines, nest.loops, strict=True)
    ]
    inner = "  " * len(nest.loops)
    body = f"{inner}y[oy, ox, c] +=\n{inner}  w[ky, kx, c] *\n{inner}  x[oy+ky-1, ox+kx-1, c]"
    return tag(
        "section",
        tag("h3", f"{nest.name}: {nest.idea}"),
        tag("pre", *code, body, tabindex=0),
        tag("p", "", class_="now"),
        tag("div", "", class_="maps", aria_hidden="true"),
        tag(
            "p",
            "x in memory, a cache line per row; lines are light and dark in turns:",
            class_="note",
        ),
        tag("div", "", class_="memory", aria_hidden="true"),
        tag("p", "", class_="counts"),
        data_nest=nest.name,
        aria_label=f"loop nest {nest.name}",
    )


# --- without a script ---------------------------------------------------------------------


def _jumps() -> Table:
    rows = []
    for channels in CHANNELS:
        for nest in NESTS:
            one = access.order(nest, channels)
            changes = [f"{access.jumps(places):,}" for places in (one.x, one.w, one.y)]
            rows.append(
                [nest.name, str(channels), f"{len(one.x):,}", *changes, f"{sum(one.stored):,}"]
            )
    columns = ["order", "channels", "products", "x", "w", "y", "sums written to y"]
    return Table(
        "how often an access lies in another cache line than the one before", columns, rows
    )


def _first(channels: int) -> Table:
    orders = [access.order(nest, channels) for nest in NESTS]
    rows = []
    for step in range(SHOWN):
        cells = [str(step + 1)]
        for one in orders:
            cells += [_product(one, step, channels), str(one.x[step]), str(one.x[step] // LINE)]
        rows.append(cells)
    columns = ["product"]
    for nest in NESTS:
        columns += [nest.name, "place of x", "line of x"]
    return Table(f"the first {SHOWN} products with {channels} channels", columns, rows)


def _product(one: Order, step: int, channels: int) -> str:
    at = access.index(one, step, channels)
    iy, ix = at["oy"] + at["ky"] - 1, at["ox"] + at["kx"] - 1
    return (
        f"y[{at['oy']},{at['ox']},{at['c']}] += x[{iy},{ix},{at['c']}] * "
        f"w[{at['ky']},{at['kx']},{at['c']}]"
    )


def _source(nest: Nest) -> Html:
    functions = [nest.kernel, *access.called(nest.kernel)]
    sources = [inspect.getsource(getattr(one, "py_func", one)) for one in functions]
    return tag(
        "details",
        tag("summary", f"The loops of {nest.name} as they stand in {nest.file}"),
        tag("pre", "\n\n".join(sources), tabindex=0),
    )
