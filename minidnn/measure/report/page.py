"""The report as one HTML page that needs nothing else: no network, no fonts, no libraries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from string import Template
from typing import Any

from minidnn.measure.report import (
    access,
    ladder_part,
    machine_part,
    nest_part,
    roof_part,
    saving_part,
    step_part,
)
from minidnn.measure.report.markup import Html, join, tag
from minidnn.measure.report.stored import report

LOOPS, LOOPS_TITLE = "loops", "Step through a loop nest"


def page(found: Mapping[str, Any], name: str = "report") -> str:
    """Return the page of an envelope of kind "report".

    Parameters
    ----------
    found : mapping
        What `minidnn.measure.results.envelope` made of `collect.collect`.
    name : str
        Where it came from, for messages.

    Raises
    ------
    InputError
        If something in it is missing or of another kind.
    """
    whole = report(found, name)
    sections = (
        ("machine", "This machine", machine_part.section(whole)),
        ("separable", "Separable against full convolutions", saving_part.section(whole)),
        ("ladders", "Ladders: from naive to fastest", ladder_part.section(whole)),
        ("roofline", "Roofline: how far from the limit", roof_part.section(whole)),
        ("step", "A training step, layer by layer", step_part.section(whole)),
        (LOOPS, LOOPS_TITLE, nest_part.section()),
    )
    links = [tag("li", tag("a", title, href=f"#{where}")) for where, title, _ in sections]
    return Template(_asset("page.html")).substitute(
        lead=machine_part.title(whole),
        links=join(links),
        sections=join([_section(*one) for one in sections]),
        style=_asset("page.css"),
        script=_asset("page.js"),
        orders=json_text(access.as_dict()),
    )


def _section(where: str, title: str, content: Html) -> Html:
    return tag("section", tag("h2", title), content, id=where)


def json_text(value: object) -> str:
    """Return JSON that no text in it can end early inside of a script element."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")
