"""HTML and SVG from Python: whatever is not markup already is escaped, so nothing can slip in."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from minidnn.measure.tables import Table

VOID = frozenset({"br", "input"})  # elements of HTML that have no end


class Html(str):
    """Text that is markup."""

    __slots__ = ()


def escaped(content: object) -> Html:
    """Return markup as it is, anything else as text."""
    return content if isinstance(content, Html) else Html(html.escape(str(content)))


def tag(name: str, /, *content: object, **attributes: object) -> Html:
    """Return an element.

    Parameters
    ----------
    name : str
    content
        Markup, texts and numbers.
    attributes
        An underscore at the end of a name is left out, others become hyphens. True stands for a
        name alone, None and False for nothing.
    """
    named = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_quoted(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    inner = "".join(map(escaped, content))
    return Html(f"<{name}{named}>" if name in VOID else f"<{name}{named}>{inner}</{name}>")


def _quoted(value: object) -> str:
    return html.escape(str(value), quote=True)


def join(parts: Sequence[object], between: str = "\n") -> Html:
    """Return several pieces as one."""
    return Html(between.join(map(escaped, parts)))


# --- what every section is made of -------------------------------------------------------


def prose(*sentences: str) -> Html:
    """Return paragraphs."""
    return join([tag("p", sentence) for sentence in sentences])


def figure(drawing: Html, sentence: str, legend: Sequence[tuple[str, str]] = ()) -> Html:
    """Return a drawing with its legend, (class, name) each, and the sentence that says it all."""
    items = [tag("li", tag("span", class_=f"swatch {kind}"), name) for kind, name in legend]
    keys = tag("ul", *items, class_="legend", aria_hidden="true") if items else Html("")
    return tag("figure", keys, drawing, tag("figcaption", sentence))


def table(found: Table, note: str = "") -> Html:
    """Return a table that can be opened, is open in print, and scrolls in a box of its own."""
    left = [number == 0 or name in found.prose for number, name in enumerate(found.columns)]

    def cell(name: str, number: int, text: str, **more: object) -> Html:
        return tag(name, text, class_="left" if left[number] else None, **more)

    head = [cell("th", i, name, scope="col") for i, name in enumerate(found.columns)]
    rows = [
        tag("tr", *(cell("td" if i else "th", i, text, scope=None if i else "row")
                    for i, text in enumerate(row)))
        for row in found.filled()
    ]  # fmt: skip
    whole = tag(
        "table",
        tag("caption", found.title),
        tag("thead", tag("tr", *head)),
        tag("tbody", *rows),
    )
    box = tag("div", whole, class_="scroll", tabindex=0, role="region", aria_label=found.title)
    more = tag("p", note, class_="note") if note else Html("")
    return tag("details", tag("summary", f"Table: {found.title}"), box, more)


# --- controls ------------------------------------------------------------------------------


def select(label: str, options: Sequence[tuple[str, str]], picked: str = "") -> Html:
    """Return a labelled list of (value, text); what is before the first dot makes groups."""
    groups: dict[str, list[Html]] = {}
    for value, text in options:
        option = tag("option", text, value=value, selected=value == picked)
        groups.setdefault(value.partition(".")[0] if "." in value else "", []).append(option)
    grouped = len(groups) > 1 and "" not in groups
    inner = [
        tag("optgroup", *own, label=name) if grouped else join(own) for name, own in groups.items()
    ]
    return tag("label", f"{label} ", tag("select", *inner))


def radios(label: str, name: str, options: Sequence[str], picked: str = "") -> Html:
    """Return one button per option, of which one is pressed."""
    chosen = picked or options[0]
    buttons = [
        tag(
            "label",
            tag("input", type="radio", name=name, value=option, checked=option == chosen),
            f" {option}",
        )
        for option in options
    ]
    return tag("fieldset", tag("legend", label), *buttons)


def picker(name: str, *controls: Html) -> Html:
    """Return controls that pick among the panels and marks of a name; see page.js."""
    return tag("div", *controls, class_="picker", data_picks=name)


def panel(name: str, key: str, *content: object, shown: bool) -> Html:
    """Return what is seen while the controls of that name stand on this key."""
    return tag("div", *content, class_="panel", data_of=name, data_key=key, hidden=not shown)


def facts(pairs: Sequence[tuple[str, Any]]) -> Html:
    """Return names and values."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs))
