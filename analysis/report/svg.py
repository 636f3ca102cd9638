"""Figures inside the page: matplotlib's SVG, small and in the colours of the page's style.

Colours of `analysis.style` become CSS variables, so that a drawing follows light and dark. What
repeats from drawing to drawing (looks, markers, clips) stands on the page once, numbers have one
decimal, and neither metadata nor fonts are kept.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from analysis import style
from analysis.style import Panel

LINK = "{http://www.w3.org/1999/xlink}href"
WIDTH, HEIGHT = 3.6, 2.5  # of a chart, in inches; a map is about as high as it is wide
LEFT, RIGHT, TOP, BOTTOM = 0.66, 0.12, 0.1, 0.48  # margins, in inches
VARIABLES = {
    style.PAPER: "paper",
    style.INK: "ink",
    "#262626": "soft",  # text of seaborn's style
    "#cccccc": "rule",  # its grid and frame
    **{colour: f"c{i}" for i, colour in enumerate(style.COLOURS)},
    **{colour: f"h{i}" for i, colour in enumerate(style.SHADES)},
}
LOOKS = ("fill", "stroke", "fill-opacity", "stroke-opacity", "opacity", "stroke-width",
         "stroke-dasharray", "text-anchor", "font-size")  # fmt: skip
DASHES = {"-": "none", "--": "5.5 2.4", ":": "1.5 2.5", "-.": "9.6 2.4 1.5 2.4"}
RECTANGLE = re.compile(r"M([^L ]+) ([^L]+)L([^L ]+) \2L\3 ([^L]+)L\1 \4(?:L\1 \2z?|z)$")
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[-+]?\d+)?")


class Drawings:
    """The drawings of one page, and what they share: `css` and `definitions` go on it once."""

    def __init__(self) -> None:
        self._classes: dict[str, str] = {}
        self._shared: dict[str, str] = {}

    @property
    def css(self) -> Markup:
        return Markup("\n".join(f".{name}{{{look}}}" for look, name in self._classes.items()))

    @property
    def definitions(self) -> Markup:
        shared = (one.replace("id=''", f"id='{name}'") for one, name in self._shared.items())
        return Markup(f"<svg class='shared' aria-hidden='true'><defs>{''.join(shared)}</defs></svg>")

    @style.styled
    def draw(self, panel: Panel, about: str) -> Markup:
        """A panel as an svg element; `about` is what a screen reader says."""
        square = panel.width - panel.height < 1
        height = WIDTH - LEFT - RIGHT + TOP + BOTTOM if square else HEIGHT
        figure = Figure(figsize=(WIDTH, height))
        across, up = WIDTH - LEFT - RIGHT, height - TOP - BOTTOM
        box = LEFT / WIDTH, BOTTOM / height, across / WIDTH, up / height
        axis = figure.add_axes(box)
        panel.draw(axis)
        axis.tick_params(labelsize=8, pad=3)
        for side in (axis.xaxis, axis.yaxis):
            side.label.set_size(9)
        text = io.StringIO()
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "addgpt"}):
            figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
        root = ET.fromstring(text.getvalue())
        known = {one.get("id", ""): one for one in root.iter()}
        head = Markup('<svg class="{}" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">').format(
            "map" if square else "chart", 72 * WIDTH, round(72 * height, 1), about
        )
        return head + Markup("".join(_merged(self._elements(root, known)))) + Markup("</svg>")

    def _elements(
        self, one: ET.Element, known: dict[str, ET.Element], own: str = "", clip: str = ""
    ) -> Iterator[tuple[str, str]]:
        """What is drawn below an element, in order: attributes and path, or markup and nothing.

        `own` is the class that an artist asked for by its gid, `clip` the clip of the group.
        """
        tag = one.tag.rpartition("}")[2]
        own = name if (name := one.get("id", "")).startswith("on") else own
        clip = one.get("clip-path", clip)
        if tag in ("svg", "g"):
            for child in one:
                yield from self._elements(child, known, own, clip)
        elif tag == "text":
            turn = f' transform="{_rounded(t)}"' if "-90" in (t := one.get("transform", "")) else ""
            look = self._look(one.get("style", ""), own)
            text = escape("".join(one.itertext()))
            yield f"<text{look}{turn}{_place(one)}>{text}</text>", ""
        elif tag in ("path", "use") and (look := self._look(one.get("style", ""), own)):
            if clip:
                look += f' clip-path="url(#{self._clip(known[clip[5:-1]])})"'
            path = one if tag == "path" else known[one.get(LINK, "")[1:]]
            points = path.get("d", "")
            if tag == "use" and "C" in points:  # a marker, which there are many of
                name = self._share(f"<path id='' d='{_path(points)}'/>")
                yield f'<use{look} href="#{name}"{_place(one)}/>', ""
            else:
                yield look, _path(points, float(one.get("x", 0)), float(one.get("y", 0)))

    def _look(self, text: str, own: str) -> str:
        """The class attribute for a style; empty if it leaves nothing to be seen."""
        said = dict(part.strip().split(": ", 1) for part in text.split(";") if part.strip())
        if not said.get("font-size"):
            said = {"fill": style.INK} | said
            if said["fill"] == "none" and "stroke" not in said:
                return ""
        if own or said.get("fill") == "#262626":
            said.pop("fill", "")  # as the style sheet has it
        said = {name: value for name, value in said.items() if name in LOOKS}
        look = ";".join(f"{name}:{_themed(value)}" for name, value in sorted(said.items()))
        names = [own] if own else []
        if look:
            names.append(self._classes.setdefault(look, f"l{len(self._classes)}"))
        return f' class="{" ".join(names)}"'

    def _clip(self, clip: ET.Element) -> str:
        sides = ("x", "y", "width", "height")
        inside = " ".join(f"{name}='{_short(clip[0].get(name, ''))}'" for name in sides)
        return self._share(f"<clipPath id=''><rect {inside}/></clipPath>")

    def _share(self, element: str) -> str:
        return self._shared.setdefault(element, f"s{len(self._shared)}")


def sample(index: int) -> str:
    """How line number `index` is stroked, in CSS: for the key beside the drawings."""
    look = style.line(index)
    return f"stroke:{_themed(look['color'])};stroke-dasharray:{DASHES[look['linestyle']]}"


def _merged(elements: Iterator[tuple[str, str]]) -> Iterator[str]:
    """The elements as markup; paths that follow one another and look alike are one."""
    look = path = ""
    for head, more in elements:
        if path and (not more or head != look):
            yield f'<path{look} d="{path}"/>'
            path = ""
        look, path = head, path + more
        if not more:
            yield head
    if path:
        yield f'<path{look} d="{path}"/>'


def _themed(value: str) -> str:
    return f"var(--{VARIABLES[value]})" if value in VARIABLES else value


def _short(number: str | float) -> str:
    return f"{round(float(number), 1):g}"


def _rounded(text: str) -> str:
    return NUMBER.sub(lambda found: _short(found[0]), text)


def _place(one: ET.Element) -> str:
    return "".join(f' {name}="{_short(one.get(name, 0))}"' for name in ("x", "y"))


def _path(text: str, x: float = 0, y: float = 0) -> str:
    """The same path, moved, in fewer letters: one decimal, rectangles by their sides."""
    parts = text.split()
    numbers = 0
    for i, part in enumerate(parts):
        if not part.isalpha():
            parts[i] = _short(float(part) + (y if numbers % 2 else x))
            numbers += 1
    path = re.sub(" ?([A-Za-z]) ?", r"\1", " ".join(parts))
    return RECTANGLE.sub(_sides, path)


def _sides(found: re.Match[str]) -> str:
    x, y, across, down = (float(number) for number in found.groups())
    return f"M{found[1]} {found[2]}h{across - x:.4g}v{down - y:.4g}h{x - across:.4g}z"
