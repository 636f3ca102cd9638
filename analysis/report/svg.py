"""Figures inside the page: what a panel draws, as small SVG in the colours of the page's style.

The panels are those of `analysis.figures`, drawn onto matplotlib's axes; the artists on them are
written here. Colours of `analysis.style` become CSS variables, so that a drawing follows light and
dark. What repeats from drawing to drawing (styles, axes) stands on the page once; points are whole
numbers, in units smaller than a pixel of the screen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import groupby, starmap
from operator import itemgetter
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import Collection, PathCollection, QuadMesh
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from analysis import style
from analysis.style import Panel

DPI = 200  # units of a drawing to an inch
WIDTHS = {"map": 3.6, "chart": 3.0}  # in inches; a map is about as high as it is wide
HEIGHT = 2.2  # of a chart
LEFT, RIGHT, TOP, BOTTOM = 0.66, 0.12, 0.1, 0.48  # margins, in inches
SMALL, LARGE = 8, 9  # texts at the ticks and along the axes, in points
SLACK = 8  # units that a line may be out of its frame, which its width or a marker is
SIMPLE = 0.7  # units that a line may pass its points by
FAR = 9999  # units beyond which nothing is drawn
GAP = 1.2  # pixels between the cells of a map
VARIABLES = {
    style.PAPER: "paper",
    style.INK: "ink",
    style.SOFT: "soft",
    style.RULE: "rule",
    **{colour: f"c{i}" for i, colour in enumerate(style.COLOURS)},
    **{colour: f"h{i}" for i, colour in enumerate(style.SHADES)},
}
DASHES = {"-": "none", "--": "5.5 2.4", ":": "1.5 2.5", "-.": "9.6 2.4 1.5 2.4"}  # in pixels
ANCHORS = {"left": "start", "center": "middle", "right": "end"}

Element = tuple[str, str]  # a class attribute; the points of a path, or an element


class Drawings:
    """The drawings of one page, and what they share: `css` and `definitions` go on it once."""

    def __init__(self) -> None:
        self._classes: dict[str, str] = {}
        self._shared: dict[str, str] = {}
        self._axes: dict[str, Axes] = {}  # new ones are slow to make

    @property
    def css(self) -> Markup:
        return Markup("\n".join(f".{name}{{{look}}}" for look, name in self._classes.items()))

    @property
    def definitions(self) -> Markup:
        shared = "".join(f"<g id='{name}'>{one}</g>" for one, name in self._shared.items())
        return Markup(f"<svg class='shared' aria-hidden='true'><defs>{shared}</defs></svg>")

    @style.styled
    def draw(self, panel: Panel) -> Markup:
        """A panel as an svg element, of which a screen reader says the title."""
        kind = "map" if panel.height > 4 else "chart"
        if kind not in self._axes:
            self._axes[kind] = _axes(kind)
        axis = self._axes[kind]
        _empty(axis)
        panel.draw(axis)
        axis.apply_aspect()
        head = Markup(
            '<svg class="{}" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">'
        ).format(kind, *axis.figure.bbox.size, panel.title)
        frame = "".join(self._share(self._side(side)) for side in (axis.yaxis, axis.xaxis))
        drawn = (*axis.collections, *axis.patches, *axis.lines, *axis.texts)
        lowest_first = sorted(drawn, key=Artist.get_zorder)
        elements = [one for artist in lowest_first for one in self._elements(artist)]
        return head + Markup(f"{frame}{_merged(elements)}</svg>")

    def _elements(self, one: Artist) -> Iterator[Element]:
        """An artist in parts, the lowest first."""
        if isinstance(one, Text):
            ((x, y),) = _units(one, one.get_transform().transform([one.get_position()]))
            size = _size(one.get_fontsize())
            look = _fill(one.get_color(), one) | {"font-size": size}
            look["text-anchor"] = ANCHORS[one.get_horizontalalignment()]
            y += round(0.36 * size)  # from the middle of the figures to their foot
            yield self._look(look, one), _text(x, y, one.get_text())
        elif isinstance(one, Line2D):
            yield from self._line(one)
        elif isinstance(one, QuadMesh):
            yield from self._cells(one)
        elif isinstance(one, PathCollection):
            points = one.get_offset_transform().transform(one.get_offsets())
            yield self._dots(one, points, math.sqrt(one.get_sizes()[0]), one.get_facecolor()[0])
        else:
            assert isinstance(one, Collection | Patch), f"no way to write {one}"
            yield from self._areas(one)

    def _line(self, line: Line2D) -> Iterator[Element]:
        """A line as far as it is in its frame, and its markers, which are round."""
        points = line.get_transform().transform(line.get_xydata())
        if line.get_linestyle() in DASHES:
            path = Path(points)
            path.simplify_threshold = SIMPLE
            frame = tuple(line.axes.bbox.padded(SLACK).extents)
            path = path.cleaned(remove_nans=True, clip=frame, simplify=True)
            look = _stroke(to_rgba(line.get_color(), line.get_alpha()), line.get_linewidth(), line)
            dashes = {"stroke-dasharray": DASHES[line.get_linestyle()]}
            yield self._look(look | dashes, line), _outline(line, path)
        if line.get_marker() not in ("", "None"):
            assert line.get_marker() == "o", f"no way to write the marker of {line}"
            points = points[np.isfinite(points).all(axis=1)]
            size, edge = line.get_markersize(), line.get_markeredgewidth()
            yield self._dots(line, points, size + edge, line.get_markeredgecolor())
            if to_hex(line.get_markerfacecolor()) == style.PAPER:
                yield self._dots(line, points, size - edge, style.PAPER)

    def _dots(self, one: Artist, points: np.ndarray, size: float, colour: Any) -> Element:
        look = _stroke(colour, size, one) | {"stroke-linecap": "round"}
        text, here = "", None
        for x, y in _units(one, points):
            text += f"m{x - here[0]} {y - here[1]}h0" if here else f"M{x} {y}h0"
            here = x, y
        return self._look(look, one), text.replace(" -", "-")

    def _areas(self, one: Collection | Patch) -> Iterator[Element]:
        """What is filled, or has an outline alone."""
        paths = [one.get_path()] if isinstance(one, Patch) else one.get_paths()
        face = np.reshape(one.get_facecolor(), (-1, 4))
        edge = np.reshape(one.get_edgecolor(), (-1, 4))
        filled = len(face) and face[0, 3]
        width = np.ravel(one.get_linewidth())[0]
        look = _fill(face[0], one) if filled else _stroke(edge[0], width, one)
        for path in paths:
            path = one.get_transform().transform_path(path)
            if one.get_clip_on():
                path = path.clip_to_bbox(one.axes.bbox.padded(SLACK))
            yield self._look(look, one), _outline(one, path)

    def _cells(self, mesh: QuadMesh) -> Iterator[Element]:
        """Cells of one colour side by side are one broad line; then come the gaps between cells."""
        corners = mesh.get_coordinates()
        rows, columns = corners.shape[0] - 1, corners.shape[1] - 1
        placed = _units(mesh, mesh.get_transform().transform(corners.reshape(-1, 2)))
        across = [x for x, _ in placed[: columns + 1]]
        up = [y for _, y in placed[:: columns + 1]]
        values = np.ma.masked_invalid(np.ma.reshape(mesh.get_array(), (rows, columns)))
        shades = np.ma.array(mesh.norm(values), mask=np.ma.getmaskarray(values)).filled(-1)
        paths: dict[int, str] = {}
        for row in range(rows):
            end = 0
            for shade, some in groupby(shades[row].tolist()):
                start, end = end, end + len(list(some))
                part = f"M{across[start]} {(up[row] + up[row + 1]) / 2:g}H{across[end]}"
                paths[shade] = paths.get(shade, "") + part
        broad = {"stroke-width": abs(up[0] - up[-1]) / rows, "vector-effect": "none"}
        for shade in sorted(paths.keys() - {-1}):
            yield self._look(_stroke(mesh.cmap(shade), 0) | broad), paths[shade]
        gaps = "".join(f"M{across[0]} {y}H{across[-1]}" for y in up[1:-1])
        gaps += "".join(f"M{x} {up[0]}V{up[-1]}" for x in across[1:-1])
        if gaps:
            path = f'<path{self._look(_stroke(style.PAPER, GAP))} d="{gaps}"/>'
            yield "", self._share(path)

    def _side(self, side: Axis) -> str:
        """An axis: its ticks with their texts, its grid and line, and its label."""
        axis, upright = side.axes, side is side.axes.yaxis
        (left, bottom), (right, top) = _units(axis, axis.bbox.get_points())
        low, high = sorted(side.get_view_interval())
        ticks = [tick for tick in side.get_majorticklocs() if low <= tick <= high]
        texts = side.get_major_formatter().format_ticks(ticks)
        scale = side.get_major_formatter().get_offset()  # such as 1e-6
        label = escape(side.label.get_text() + (f", times {scale}" if scale else ""))
        points = [(left, tick) if upright else (tick, bottom) for tick in ticks]
        blended = axis.get_yaxis_transform() if upright else axis.get_xaxis_transform()
        places = _units(axis, blended.transform(np.reshape(points, (-1, 2))))
        shown = axis.spines["left"].get_visible()
        marks = [(place[upright], text) for place, text in zip(places, texts, strict=True)]
        if upright:
            lines = "".join(f"M{left} {y}H{right}" for _, y in places) + f"M{left} {top}V{bottom}"
            marks = [_text(left - 12, y + 8, text) for y, text in marks]
            x, y = (left - 60 if shown else left - 50), (top + bottom) // 2
            place = f'transform="rotate(-90 {x} {y})" x="{x}" y="{y}"'
        else:
            lines = f"M{left} {bottom}H{right}"
            marks = [_text(x, bottom + 30, text) for x, text in marks]
            place = f'x="{(left + right) // 2}" y="{bottom + 64}"'
        path = f'<path{self._look(_stroke(style.RULE, 1))} d="{lines}"/>' if shown else ""
        anchor = "end" if upright else "middle"
        small = self._look({"font-size": _size(SMALL), "text-anchor": anchor})
        large = self._look({"font-size": _size(LARGE), "text-anchor": "middle"})
        return f"{path}<g{small}>{''.join(marks)}</g><text{large} {place}>{label}</text>"

    def _look(self, said: dict[str, Any], one: Artist | None = None) -> str:
        """The class attribute for a style, and for the class that an artist is in by its gid."""
        look = ";".join(
            f"{name}:{value:.4g}" if isinstance(value, float) else f"{name}:{value}"
            for name, value in sorted(said.items())
            if value != ""
        )
        name = self._classes.setdefault(look, f"l{len(self._classes)}")
        own = one.get_gid() if one is not None else None
        return f' class="{own} {name}"' if own else f' class="{name}"'

    def _share(self, inside: str) -> str:
        return f'<use href="#{self._shared.setdefault(inside, f"s{len(self._shared)}")}"/>'


def sample(index: int) -> str:
    """How line number `index` is stroked, in CSS: for the key beside the drawings."""
    look = style.line(index)
    return f"stroke:{_colour(look['color'])};stroke-dasharray:{DASHES[look['linestyle']]}"


def _axes(kind: str) -> Axes:
    """Axes of a size for the page, alone in a figure."""
    width = WIDTHS[kind]
    across = width - LEFT - RIGHT
    up = across if kind == "map" else HEIGHT - TOP - BOTTOM
    height = up + TOP + BOTTOM
    figure = Figure(figsize=(width, height), dpi=DPI)
    axis = figure.add_axes((LEFT / width, BOTTOM / height, across / width, up / height))
    axis.tick_params(labelsize=SMALL)  # from which matplotlib knows how many there is room for
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


def _merged(elements: Iterable[Element]) -> str:
    """The elements as markup, successive ones of one style joined; texts come last.

    Each text has a place of its own, so they can be sorted by style.
    """
    texts = sorted(one for one in elements if one[1].startswith("<text"))
    others = [one for one in elements if one[1] and not one[1].startswith("<text")]
    markup = ""
    for look, some in groupby(others, key=itemgetter(0)):
        inside = "".join(inside for _, inside in some)
        markup += f'<path{look} d="{inside}"/>' if look else inside
    for look, some in groupby(texts, key=itemgetter(0)):
        markup += f"<g{look}>{''.join(text for _, text in some)}</g>"
    return markup


def _stroke(colour: Any, width: float, one: Artist | None = None) -> dict[str, Any]:
    look = {"fill": "none", "stroke": _colour(colour, one), "stroke-width": float(width)}
    return look | {"stroke-opacity": _opacity(colour)}


def _fill(colour: Any, one: Artist | None = None) -> dict[str, Any]:
    return {"fill": _colour(colour, one), "fill-opacity": _opacity(colour)}


def _colour(colour: Any, one: Artist | None = None) -> str:
    """As the style sheet has it; of an artist with a gid, that of its class."""
    if one is not None and one.get_gid():
        return "var(--on)"
    return f"var(--{VARIABLES[to_hex(colour)]})" if to_hex(colour) in VARIABLES else to_hex(colour)


def _opacity(colour: Any) -> float | str:
    return to_rgba(colour)[3] if to_rgba(colour)[3] < 1 else ""


def _size(points: float) -> int:
    return round(points / 72 * DPI)


def _units(one: Artist, points: np.ndarray) -> list[list[int]]:
    """Points in whole units from the top, as SVG counts them, not from the bottom."""
    points = np.asarray(points, float) * (1, -1) + (0, one.figure.bbox.height)
    return np.clip(np.nan_to_num(points), -FAR, FAR).round().astype(int).tolist()


def _text(x: int, y: int, text: str) -> str:
    return f'<text x="{x}" y="{y}">{escape(text)}</text>'


def _outline(one: Artist, path: Path) -> str:
    """A short path of straight lines: relative, without those of length zero."""
    codes = path.codes
    if codes is None:
        codes = [Path.MOVETO, *[Path.LINETO] * (len(path.vertices) - 1)]
    begun = here = [0, 0]
    text, steps = "", []
    ends = [*zip(codes, _units(one, path.vertices), strict=True), (Path.MOVETO, begun)]
    for code, there in ends:
        if code == Path.LINETO:
            steps.append((there[0] - here[0], there[1] - here[1]))
        elif code in (Path.MOVETO, Path.CLOSEPOLY):
            steps = _joined(steps)
            text += f"M{begun[0]} {begun[1]}{''.join(starmap(_step, steps))}" if steps else ""
            text += "z" if steps and code == Path.CLOSEPOLY else ""
            begun, steps = there, []
        here = there
    return text.replace(" -", "-")


def _joined(steps: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Steps in one direction, as along the edge of a frame, joined; those of length zero
    dropped."""
    found: list[tuple[int, int]] = []
    for across, up in steps:
        before = found[-1] if found else (0, 0)
        if before[0] * up == before[1] * across and before[0] * across + before[1] * up > 0:
            found[-1] = before[0] + across, before[1] + up
        elif across or up:
            found.append((across, up))
    return found


def _step(across: int, up: int) -> str:
    return f"l{across} {up}" if across and up else f"h{across}" if across else f"v{up}"
