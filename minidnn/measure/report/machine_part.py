"""The report's first section: the machine and its own limits."""

from __future__ import annotations

from minidnn.measure import roofline
from minidnn.measure.peaks import Peaks
from minidnn.measure.report import svg
from minidnn.measure.report.markup import Html, facts, figure, join, table, tag
from minidnn.measure.report.stored import Report
from minidnn.measure.report.svg import Bar, Part

ONE_THREAD, ALL_THREADS = "light", "one"  # colours


def section(report: Report) -> Html:
    """Return what was measured, where, and what the machine can do at most."""
    machine, settings, peaks = report.machine, report.settings, report.peaks
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    cpus = machine["affinity"]
    known = [
        ("CPU", machine["cpu"]),
        ("threads", machine["threads"]),
        *([("CPUs of this process", ", ".join(map(str, cpus)))] if cpus else []),
        ("Python", machine["python"]),
        ("versions", versions),
        ("measured", _date(machine["date"])),
        (
            "shapes",
            f"{settings['size']}{', quick' if settings['quick'] else ''}; "
            f"batch {settings['batch']}, for single kernels {settings['few']}",
        ),
    ]
    tables = [table(one) for one in roofline.peak_tables(peaks)]
    return join([facts(known), _arithmetic(peaks), _bandwidth(peaks), *tables])


def _legend(peaks: Peaks) -> list[tuple[str, str]]:
    if peaks.alone is None:
        return [(ALL_THREADS, "1 thread")]
    return [(ALL_THREADS, f"{peaks.threads} threads"), (ONE_THREAD, "1 thread")]


def _parts(every: float, alone: float | None) -> list[Part]:
    parts = [Part(0, every, ALL_THREADS)]
    return parts if alone is None else [*parts, Part(0, alone, ONE_THREAD)]


def _arithmetic(peaks: Peaks) -> Html:
    alone = peaks.alone.by_isa if peaks.alone else {}
    rows = [
        Bar(isa, f"{rate / 1e9:.4g} GFLOP/s", _parts(rate, alone.get(isa)))
        for isa, rate in peaks.by_isa.items()
    ]
    axis = svg.linear_axis(peaks.flops, "10⁹ float32 operations per second", _giga)
    widest = max(peaks.by_isa, key=peaks.by_isa.__getitem__)
    sentence = (
        f"Multiply-adds on {peaks.threads} threads reach {peaks.flops / 1e9:.4g} GFLOP/s "
        f"({widest}), two operations each."
    )
    return figure(svg.bars(rows, axis, sentence), sentence, _legend(peaks))


def _bandwidth(peaks: Peaks) -> Html:
    alone = {x.name: x.bandwidth for x in peaks.alone.levels} if peaks.alone else {}
    rows = [
        Bar(
            one.label, f"{one.bandwidth / 1e9:.3g} GB/s", _parts(one.bandwidth, alone.get(one.name))
        )
        for one in peaks.levels
    ]
    top = max(one.bandwidth for one in peaks.levels)
    axis = svg.linear_axis(top, "10⁹ bytes per second, by buffer of each thread", _giga)
    ridge = peaks.flops / peaks.bandwidth
    sentence = (
        f"Memory gives {peaks.bandwidth / 1e9:.3g} GB/s, {peaks.levels[0].name} "
        f"{peaks.levels[0].bandwidth / 1e9:.3g}. From memory, a kernel with fewer than {ridge:.3g} "
        "operations per byte waits for its numbers; with more it waits for arithmetic."
    )
    return figure(svg.bars(rows, axis, sentence), sentence, _legend(peaks))


def _giga(value: float) -> str:
    return f"{value / 1e9:.4g}"


def title(report: Report) -> Html:
    """Return the line under the page's heading."""
    machine = report.machine
    text = f"{machine['cpu']}, {machine['threads']} threads, {_date(machine['date'])}"
    return tag("p", text, class_="lead")


def _date(written: str) -> str:
    """Return a date without what a reader does not need: 2026-05-01 12:30 UTC."""
    day, _, time = written.partition("T")
    return f"{day} {time[:5]} UTC" if written.endswith("+00:00") else written
