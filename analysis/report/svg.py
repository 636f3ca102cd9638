"""Figures inside the page: matplotlib's SVG, small and in the colours of the page's style.

Colours of `analysis.style` become CSS variables, so that a drawing follows light and dark. What
repeats from drawing to drawing (looks, markers, clips) stands on the page once, numbers have one
decimal, and neither metadata nor fonts are kept.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from itertools import groupby

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from analysis import style
from analysis.style import Panel

LINK = "{http://www.w3.org/1999/xlink}href"
WIDTH, HEIGHT = 3.6, 2.5  # of a chart, in inches; a map is about as high as it is wide
LEFT, RIGHT, TOP, BOTTOM = 0.66, 0.12, 0.1, 0.48  # margins, in inches
VARIABLES = {
    style.PAPER: "paper",
    style.INK: "ink",
    style.SOFT: "soft",
    style.RULE: "rule",
    **{colour: f"c{i}" for i, colour in enumerate(style.COLOURS)},
    **{colour: f"h{i}" for i, colour in enumerate(style.SHADES)},
}
LOOKS = ("fill", "stroke", "fill-opacity", "stroke-opacity", "opacity", "stroke-width",
         "stroke-dasharray", "text-anchor", "font-size")  # fmt: skip
CELLS = tuple(f"fill: {colour}" for colour in style.SHADES)
DASHES = {"-": "none", "--": "5.5 2.4", ":": "1.5 2.5", "-.": "9.6 2.4 1.5 2.4"}
SIDES = ("x", "y", "width", "height")
SLACK = 3  # points that a line may be out of its frame, which its width or a marker is
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[-+]?\d+)?")


class Drawings:
    """The drawings of one page, and what they share: `css` and `definitions` go on it once."""

    def __init__(self) -> None:
        self._classes: dict[str, str] = {}
        self._shared: dict[str, str] = {}
        self._axes: dict[bool, Axes] = {}  # of maps and of charts: new ones are slow to make

    @property
    def css(self) -> Markup:
        return Markup("\n".join(f".{name}{{{look}}}" for look, name in self._classes.items()))

    @property
    def definitions(self) -> Markup:
        shared = "".join(one.replace("id=''", f"id='{name}'") for one, name in self._shared.items())
        return Markup(f"<svg class='shared' aria-hidden='true'><defs>{shared}</defs></svg>")

    @style.styled
    def draw(self, panel: Panel, about: str) -> Markup:
        """A panel as an svg element; `about` is what a screen reader says."""
        square = panel.height > 4
        if square not in self._axes:
            self._axes[square] = _axes(square)
        axis = self._axes[square]
        figure = axis.figure
        height = figure.get_figheight()
        _empty(axis)
        panel.draw(axis)
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
    ) -> Iterator[tuple[str, str, str]]:
        """What is drawn below an element, in order: its tag, its look, and the path or markup.

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
            yield tag, look, f"<text{turn}{_place(one)}>{text}</text>"
        elif tag in ("path", "use") and (look := self._look(one.get("style", ""), own)):
            path = one if tag == "path" else known[one.get(LINK, "")[1:]]
            points = path.get("d", "")
            x, y = (float(one.get(name, 0)) for name in ("x", "y"))
            if clip and _leaves(points, x, y, rect := known[clip[5:-1]][0]):
                look += f' clip-path="url(#{self._clip(rect)})"'
            if tag == "use" and "C" in points:  # a marker, which there are many of
                name = self._share(f"<path id='' d='{_path(points)}'/>")
                yield tag, look, f'<use href="#{name}"{_place(one)}/>'
            else:
                cell = one.get("style", "").startswith(CELLS)
                yield "cell" if cell else "path", look, _path(points, x, y)

    def _look(self, text: str, own: str) -> str:
        """The class attribute for a style; empty if it leaves nothing to be seen."""
        said = dict(part.strip().split(": ", 1) for part in text.split(";") if part.strip())
        if not said.get("font-size"):
            said = {"fill": style.INK} | said
            if said["fill"] == "none" and "stroke" not in said:
                return ""
        if own or said.get("fill") == style.SOFT:
            said.pop("fill", "")  # as the style sheet has it
        said = {name: value for name, value in said.items() if name in LOOKS}
        look = ";".join(f"{name}:{_themed(value)}" for name, value in sorted(said.items()))
        names = [own] if own else []
        if look:
            names.append(self._classes.setdefault(look, f"l{len(self._classes)}"))
        return f' class="{" ".join(names)}"'

    def _clip(self, rect: ET.Element) -> str:
        inside = " ".join(f"{name}='{_short(rect.get(name, ''))}'" for name in SIDES)
        return self._share(f"<clipPath id=''><rect {inside}/></clipPath>")

    def _share(self, element: str) -> str:
        return self._shared.setdefault(element, f"s{len(self._shared)}")


def _axes(square: bool) -> Axes:
    """Axes of a size for the page, alone in a figure."""
    height = WIDTH - LEFT - RIGHT + TOP + BOTTOM if square else HEIGHT
    across, up = WIDTH - LEFT - RIGHT, height - TOP - BOTTOM
    figure = Figure(figsize=(WIDTH, height))
    axis = figure.add_axes((LEFT / WIDTH, BOTTOM / height, across / WIDTH, up / height))
    axis.tick_params(labelsize=8, pad=3)
    axis.grid(visible=False, axis="x")
    axis.spines[["top", "right"]].set_visible(False)
    for side in (axis.xaxis, axis.yaxis):
        side.label.set_size(9)
    return axis


def _empty(axis: Axes) -> None:
    """Take away what the last drawing left, and what that did to the scales."""
    for artist in (*axis.lines, *axis.collections, *axis.patches, *axis.texts):
        artist.remove()
    axis.set(xscale="linear", yscale="linear")
    axis.margins(0.05)
    axis.dataLim.set(Bbox.null())
    axis.ignore_existing_data_limits = True
    axis.autoscale()


def sample(index: int) -> str:
    """How line number `index` is stroked, in CSS: for the key beside the drawings."""
    look = style.line(index)
    return f"stroke:{_themed(look['color'])};stroke-dasharray:{DASHES[look['linestyle']]}"


def _merged(elements: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    """The elements as markup, those of like tag and look that follow one another as one.

    Cells of a map come first and texts last, sorted by their look, which changes nothing to be
    seen: nothing is below the former, and each text has its own place.
    """

    def rank(one: tuple[str, str, str]) -> tuple[int, str]:
        tag, look, _ = one
        if tag == "text":
            return 2, look
        return (0, look) if tag == "cell" else (1, "")

    for (tag, look), some in groupby(sorted(elements, key=rank), key=lambda one: one[:2]):
        inside = "".join(content for *_, content in some)
        path = tag in ("path", "cell")
        yield f'<path{look} d="{inside}"/>' if path else f"<g{look}>{inside}</g>"


def _themed(value: str) -> str:
    return f"var(--{VARIABLES[value]})" if value in VARIABLES else value


def _short(number: str | float) -> str:
    return f"{round(float(number), 1):g}"


def _rounded(text: str) -> str:
    return NUMBER.sub(lambda found: _short(found[0]), text)


def _place(one: ET.Element) -> str:
    digits = 0 if one.tag.endswith("text") else 1
    places = ((name, round(float(one.get(name, 0)), digits)) for name in ("x", "y"))
    return "".join(f' {name}="{place:g}"' for name, place in places)


def _leaves(points: str, x: float, y: float, rect: ET.Element) -> bool:
    """Whether a path, moved, goes out of a rectangle, so that it has to be clipped."""
    numbers = [float(part) for part in points.split() if not part.isalpha()]
    left, top, width, height = (float(rect.get(name, 0)) for name in SIDES)

    def out(some: list[float], start: float, size: float) -> bool:
        return bool(some) and (min(some) < start - SLACK or max(some) > start + size + SLACK)

    return out(numbers[::2], left - x, width) or out(numbers[1::2], top - y, height)


def _path(text: str, x: float = 0, y: float = 0) -> str:
    """The same path, moved, in few letters: lines are relative, in tenths of a point."""
    parts, path = text.split(), ""
    here = (0, 0)
    while parts:
        command = parts.pop(0) if parts[0].isalpha() else ""
        points = {"M": 1, "L": 1, "C": 3}.get(command, 0)
        for _ in range(points):
            there = round(10 * (float(parts.pop(0)) + x)), round(10 * (float(parts.pop(0)) + y))
            across, up = (to - of for to, of in zip(there, here, strict=True))
            if command == "L" and not (across and up):
                path += f"h{_tenths(across)}" if across or not up else f"v{_tenths(up)}"
            else:
                values = (across, up) if command == "L" else there
                path += command.replace("L", "l") + " ".join(map(_tenths, values))
                command = "" if command == "C" else command
                path += " " if points == 3 else ""
            here = there
        path = path.strip() + ("z" if command in ("z", "Z") else "")
    return path.replace(" -", "-")


def _tenths(number: int) -> str:
    return f"{number / 10:g}".replace("0.", ".", 1) if abs(number) < 10 else f"{number / 10:g}"
