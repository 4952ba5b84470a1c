"""Geometry of line charts and heat maps, as numbers for the template; no markup."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from unicodedata import east_asian_width

from fairbeam.report.content import Attention

Points = Sequence[tuple[float, float]]

_MOST_MARKS = 30
_LONGEST_LABEL = 16


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A labelled position along an axis, in pixels."""

    position: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A dot on a line."""

    x: float
    y: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """One series of a chart, as an SVG path with optional marks."""

    name: str
    path: str
    marks: Sequence[Mark]
    last: str


@dataclass(frozen=True, kw_only=True)
class LineChart:
    """A chart in a box of ``width`` × ``height`` pixels; the plot lies within the four edges."""

    title: str
    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    lines: Sequence[Line]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One attention weight; ``strength`` is its ratio to the largest."""

    x: float
    y: float
    strength: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Label:
    """A token beside the heat map: shortened for the drawing, in full for the tooltip."""

    position: float
    short: str
    full: str


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """Heat map of attention, with source tokens as columns and target tokens as rows."""

    width: float
    height: float
    left: float
    top: float
    cell: float
    columns: Sequence[Label]
    rows: Sequence[Label]
    cells: Sequence[Cell]
    largest: float

    @property
    def right(self) -> float:
        """Right edge of the grid, in pixels."""
        return self.left + self.cell * len(self.columns)

    @property
    def bottom(self) -> float:
        """Lower edge of the grid, in pixels."""
        return self.top + self.cell * len(self.rows)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round values that enclose ``low`` to ``high``, in steps of 1, 2 or 5 times a power of ten.

    Args:
        low: smallest value shown.
        high: largest value shown, not below ``low``.
        count: approximate number of steps.
    """
    span = high - low
    if span < 1e-9 * max(abs(low), abs(high), 1.0):  # a flat series, up to rounding
        span = max(abs(high), 1.0)
    magnitude = 10 ** math.floor(math.log10(span / count))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if span / (factor * magnitude) <= count * 1.0001)
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return [n * step for n in range(first, last + 1)]


def line_chart(
    title: str, series: Mapping[str, Points], *, width: int = 480, height: int = 300, from_zero: bool = False
) -> LineChart:
    """Draw series over updates on common axes.

    Args:
        title: title of the chart, the measured quantity.
        series: (update, value) pairs in order of updates, by name; at least one pair in total.
        width: width in pixels.
        height: height in pixels.
        from_zero: whether the vertical axis must include 0.
    """
    left, right, top, bottom = 46, width - 14, 12, height - 42
    updates = [x for points in series.values() for x, _ in points]
    values = [y for points in series.values() for _, y in points]
    y_values = nice_ticks(min(values + [0.0] * from_zero), max(values))
    x_low, x_high = min(0.0, *updates), max(*updates, 1.0)
    x_values = [tick for tick in nice_ticks(x_low, x_high) if tick <= x_high]

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low)
        up = (y - y_values[0]) / (y_values[-1] - y_values[0])
        return round(left + across * (right - left), 1), round(bottom - up * (bottom - top), 1)

    return LineChart(
        title=title,
        width=width,
        height=height,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        x_ticks=[Tick(position=place(x, y_values[0])[0], label=f"{x:,.0f}") for x in x_values],
        y_ticks=[Tick(position=place(x_low, y)[1], label=_short(y)) for y in y_values],
        lines=[_line(name, points, place) for name, points in series.items()],
    )


def heat_map(attention: Attention) -> HeatMap:
    """Lay out an attention matrix; longer sentences get smaller cells."""
    longest = max(len(attention.source), len(attention.target), 1)
    cell = max(10.0, min(30.0, 720 / longest))
    columns, rows = ([_shortened(token) for token in tokens] for tokens in (attention.source, attention.target))
    left = 10 + max((_text_width(label) for label in rows), default=0)
    # Source labels are rotated by 45 degrees, so height and overhang are the same fraction of their length.
    lean = [math.sqrt(0.5) * _text_width(label) for label in columns]
    top = 16 + max(lean, default=0)
    overhang = max((lean[n] - cell * (len(columns) - n - 1) for n in range(len(columns))), default=0)
    largest = max((weight for row in attention.weights for weight in row), default=0.0)
    return HeatMap(
        width=round(left + cell * len(columns) + max(overhang, 0) + 4, 1),
        height=round(top + cell * len(rows) + 2, 1),
        left=round(left, 1),
        top=round(top, 1),
        cell=round(cell, 2),
        columns=_labels(attention.source, columns, left, cell),
        rows=_labels(attention.target, rows, top, cell),
        cells=[
            Cell(
                x=round(left + column * cell, 1),
                y=round(top + row * cell, 1),
                strength=round(weight / largest, 2),
                label=f"{attention.target[row]} ← {attention.source[column]}: {weight:.2f}",
            )
            for row, weights in enumerate(attention.weights)
            for column, weight in enumerate(weights)
            if largest and weight / largest >= 0.02  # fainter cells are invisible
        ],
        largest=largest,
    )


def _line(name: str, points: Points, place: Callable[[float, float], tuple[float, float]]) -> Line:
    placed = [place(*point) for point in points]
    marks = [
        Mark(x=x, y=y, label=f"{name} {value:.2f} at update {update:,.0f}")
        for (x, y), (update, value) in zip(placed, points, strict=True)
    ]
    return Line(
        name=name,
        path="M" + "L".join(f"{x} {y}" for x, y in placed),
        marks=marks if len(marks) <= _MOST_MARKS else [],
        last=f"{points[-1][1]:.2f}",
    )


def _short(value: float) -> str:
    return f"{round(value, 6):,.6g}"


def _labels(tokens: Sequence[str], shortened: Sequence[str], start: float, cell: float) -> list[Label]:
    return [
        Label(position=round(start + (n + 0.5) * cell, 1), short=short, full=token)
        for n, (token, short) in enumerate(zip(tokens, shortened, strict=True))
    ]


def _shortened(token: str) -> str:
    return token if len(token) <= _LONGEST_LABEL else token[: _LONGEST_LABEL - 1] + "…"


def _text_width(text: str) -> float:
    """Estimate the width of a text in pixels at a font size of 12 pixels, without font metrics."""
    return sum(12.5 if east_asian_width(character) in "WF" else 7.0 for character in text)
