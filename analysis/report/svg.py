"""The figures of the report: small inline SVG whose colours are set by the page's style.

So they follow light and dark, are sharp at every size and print, and need a few kilobytes each.
Class names are those of `templates/report.css`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup

from addgpt.evaluation.intervals import percent
from analysis.report.numbers import shade

ANNOTATED = 10  # lengths a side up to which the cells of a heat map state their percentage
MOST_POINTS = 200  # of a line
HUES = 8  # colours that the style sheet has for lines
WIDTH, HEIGHT = 340, 230  # of a chart, in its own units
LEFT, RIGHT, TOP, BOTTOM = 42, 14, 12, 40  # margins of a chart


@dataclass(frozen=True)
class Line:
    """One line of a chart: a hue, and where there are intervals, their ends.

    Points that are `hollow` are drawn so, and have no interval.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    hue: int = 0
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    hollow: Sequence[bool] | None = None


@dataclass(frozen=True)
class Axis:
    """Where values lie on a chart; `log` scales show powers of ten."""

    low: float
    high: float
    log: bool = False
    whole: bool = False  # only whole numbers are marked

    def share(self, value: float) -> float:
        """How far along the axis a value lies, 0 to 1."""
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def ticks(self) -> list[tuple[float, str]]:
        if self.log:
            ends = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            return [
                (10.0**e, _power(e))
                for e in range(ends[0], ends[1] + 1, 1 + (ends[1] - ends[0]) // 5)
            ]
        step = _step((self.high - self.low) / (10 if self.whole else 5))
        step = max(1, step) if self.whole else step
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(i * step, _short(i * step)) for i in range(first, last + 1)]


def chart(
    lines: Sequence[Line],
    about: str,
    x_name: str,
    x: Axis,
    y: Axis,
    dots: bool = False,
    limit: float = math.nan,
) -> Markup:
    """Lines over a frame; `about` is what a screen reader says.

    Args:
        dots: mark every point, for lines of few points.
        limit: where an upright dashed line stands, such as the longest length trained on.
    """
    parts = [_frame(x_name, x, y)]
    if math.isfinite(limit) and x.low <= limit <= x.high:
        at = _x(x, limit)
        parts.append(f'<path class="limit" d="M{at} {TOP}V{HEIGHT - BOTTOM}"/>')
    for line in lines:
        hue = f"s{line.hue % HUES}"
        keep = _kept(line, y)
        open_ones = [i for i in keep if line.hollow and line.hollow[i]]
        if line.low is not None and line.high is not None:
            known = [i for i in keep if i not in open_ones]
            there = [(line.x[i], line.high[i]) for i in known]
            back = [(line.x[i], line.low[i]) for i in reversed(known)]
            parts.append(f'<path class="band {hue}" d="{_path(there + back, x, y)}z"/>')
        points = [(line.x[i], line.y[i]) for i in keep]
        title = Markup("<title>{}</title>").format(line.name)
        parts.append(f'<path class="line {hue}" d="{_path(points, x, y)}">{title}</path>')
        if dots:
            marks = {i: f"M{_x(x, line.x[i])} {_y(y, line.y[i])}h0" for i in keep}
            parts.append(f'<path class="dots {hue}" d="{"".join(marks.values())}"/>')
            inner = "".join(marks[i] for i in open_ones)
            parts.append(f'<path class="dots hole" d="{inner}"/>' if inner else "")
    return _svg(about, WIDTH, HEIGHT, parts, "chart")


def heat(cells: pd.DataFrame, about: str) -> Markup:
    """Heat map of exact match over the lengths (digits) of both operands, first operand upwards.

    Takes cells with `len_a`, `len_b`, `answer_correct`, `n`, `accuracy`, `seen` and `trained`.
    Up to 10 lengths a side every cell states its percentage; beyond, a dot stands in each cell that
    is not all right. A corner marks cells seen in training, a line surrounds lengths trained on.
    """
    rows, columns = (sorted(set(cells[name])) for name in ("len_a", "len_b"))
    longest = max(len(rows), len(columns))
    size = 40 if longest <= 6 else 36 if longest <= 8 else 30 if longest <= ANNOTATED else 20
    left, top, bottom = 40, 4, 40
    places = [
        (columns.index(cell.len_b), len(rows) - 1 - rows.index(cell.len_a), cell)
        for cell in cells.itertuples()
    ]
    inner = f'<g transform="translate({left},{top}) scale({size})">'
    parts = [
        inner,
        *_cells(places),
        *_marks(places, longest),
        _outline(cells, rows, columns),
        "</g>",
    ]
    if longest <= ANNOTATED:
        for x, y, cell in places:
            text = percent(cell.answer_correct, cell.n)
            at = f'x="{left + (x + 0.5) * size:g}" y="{top + (y + 0.5) * size:g}"'
            small = ' textLength="27" lengthAdjust="spacingAndGlyphs"' if len(text) > 4 else ""
            parts.append(f'<text class="in t{shade(cell.accuracy)}" {at}{small}>{text}</text>')
    every = -(-longest // 20)
    bottom_y = top + len(rows) * size
    for i in range(0, len(columns), every):
        parts.append(_text(left + (i + 0.5) * size, bottom_y + 15, columns[i], "mid"))
    for i in range(0, len(rows), every):
        y = top + (len(rows) - i - 0.5) * size
        parts.append(_text(left - 6, y + 4, rows[i], "end"))
    middle = left + len(columns) * size / 2
    parts.append(_text(middle, bottom_y + 33, "digits of b", "mid name"))
    side = top + len(rows) * size / 2
    turn = f'transform="translate(11,{side:g}) rotate(-90)"'
    parts.append(f'<text class="mid name" {turn}>digits of a</text>')
    return _svg(about, left + len(columns) * size + 4, bottom_y + bottom, parts, "heat")


def _cells(places: list) -> list[str]:
    """The squares of a heat map, one path for each shade, and a title for those not all right."""
    squares: dict[int, list[str]] = {}
    titled = []
    for x, y, cell in places:
        number, square = shade(cell.accuracy), f"M{x} {y}h.95v.95h-.95z"
        if cell.accuracy < 1:
            what = f"{cell.len_a} and {cell.len_b} digits: {cell.answer_correct:,} of {cell.n:,}"
            titled.append(f'<path class="h{number}" d="{square}"><title>{what}</title></path>')
        else:
            squares.setdefault(number, []).append(square)
    whole = [f'<path class="h{number}" d="{"".join(d)}"/>' for number, d in squares.items()]
    return whole + titled


def _marks(places: list, longest: int) -> list[str]:
    """Corners of cells seen in training and dots of wrong ones, in what stands out on the shade."""
    corners: dict[int, str] = {}
    dots: dict[int, str] = {}
    for x, y, cell in places:
        number = shade(cell.accuracy)
        if cell.seen:
            corners[number] = corners.get(number, "") + f"M{x} {y}h.22l-.22 .22z"
        if cell.accuracy < 1 and longest > ANNOTATED:
            dots[number] = dots.get(number, "") + f"M{x + 0.475:g} {y + 0.475:g}h0"
    drawn = [f'<path class="t{number}" d="{path}"/>' for number, path in corners.items()]
    return drawn + [f'<path class="dot t{number}" d="{path}"/>' for number, path in dots.items()]


def _outline(cells: pd.DataFrame, rows: list[int], columns: list[int]) -> str:
    """A line around the lengths trained on."""
    limit = cells["trained"].max()
    width, height = (sum(length <= limit for length in lengths) for lengths in (columns, rows))
    if not width or not height:
        return ""
    y = len(rows) - height
    return f'<path class="trained" d="M-.025 {y - 0.025:g}h{width}v{height}h-{width}z"/>'


def _frame(x_name: str, x: Axis, y: Axis) -> str:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for value, text in y.ticks():
        parts.append(f'<path class="grid" d="M{LEFT} {_y(y, value)}H{right}"/>')
        parts.append(_text(LEFT - 6, float(_y(y, value)) + 4, text, "end"))
    for value, text in x.ticks():
        parts.append(_text(float(_x(x, value)), bottom + 16, text, "mid"))
    parts.append(f'<path class="axis" d="M{LEFT} {bottom}H{right}"/>')
    parts.append(_text((LEFT + right) / 2, HEIGHT - 6, x_name, "mid name"))
    return "".join(parts)


def _kept(line: Line, y: Axis) -> list[int]:
    """Which points of a line are drawn: finite ones, and not more than can be seen."""
    ends = (line.x, line.y)
    good = [
        i
        for i in range(len(line.x))
        if all(np.isfinite(end[i]) for end in ends) and (line.y[i] > 0 or not y.log)
    ]
    if len(good) <= MOST_POINTS:
        return good
    return [good[i] for i in np.linspace(0, len(good) - 1, MOST_POINTS).astype(int)]


def _path(points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    return "M" + "L".join(f"{_x(x, a)} {_y(y, b)}" for a, b in points) if points else "M0 0"


def _x(axis: Axis, value: float) -> str:
    return f"{LEFT + axis.share(value) * (WIDTH - LEFT - RIGHT):.1f}"


def _y(axis: Axis, value: float) -> str:
    return f"{HEIGHT - BOTTOM - axis.share(value) * (HEIGHT - BOTTOM - TOP):.1f}"


def _text(x: float, y: float, text: object, look: str) -> str:
    return Markup('<text class="{}" x="{:g}" y="{:g}">{}</text>').format(look, x, y, text)


def _svg(about: str, width: float, height: float, parts: Sequence[str], look: str) -> Markup:
    head = Markup(
        '<svg class="{}" viewBox="0 0 {:g} {:g}" style="max-width:{:g}px" role="img" '
        'aria-label="{}">'
    ).format(look, width, height, width * (1.25 if look == "chart" else 1), about)
    return head + Markup("".join(parts)) + Markup("</svg>")


def _step(least: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, ... (and 0.5, ...) that is no less."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * 0.999)


def _short(value: float) -> str:
    """A number in few letters: 150k, 1.2M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def _power(exponent: int) -> str:
    digits = str(abs(exponent)).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{'⁻' if exponent < 0 else ''}{digits}"
