"""Draws PNG plots: panels of points and lines, which the reports declare.

matplotlib is imported lazily, because training does not need it. Text is drawn literally, never as a formula.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEFORE_COLOR, AFTER_COLOR, TEXT_COLOR = "#8c8c8c", "#d1495b", "#333333"
LINE_COLORS = ("#1f6f9f", "#5b8c5a", "#8e6bab", "#b07d3c")
# Axis limits of a percentage: leaves room for a marker at 100 %.
PERCENT = (0, 105)
# Longer labels are truncated.
LONGEST_LABEL = 140

Errors = Sequence[float] | tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class Points:
    """Points of one color and marker, optionally joined by a line.

    `x_errors` and `y_errors` are the lengths of error bars: symmetric, or (below, above).
    """

    x: Sequence[float]
    y: Sequence[float]
    label: str = ""
    color: Any = TEXT_COLOR
    marker: str = "o"
    size: float = 3.5
    joined: bool = False
    x_errors: Errors | None = None
    y_errors: Errors | None = None
    hollow: bool = False


@dataclass(frozen=True)
class Panel:
    """One set of axes.

    `x_names` and `y_names` label the positions 0, 1, ... of an axis, y from the top. `whole_x` puts x ticks at whole
    numbers only, as steps need; `zero_line` marks x = 0. `empty` is a text across the panel, for one without a curve.
    """

    title: str
    points: Sequence[Points]
    x_label: str = ""
    y_label: str = ""
    x_limits: tuple[float, float] | None = None
    y_limits: tuple[float, float | None] | None = None
    x_names: Sequence[str] | None = None
    y_names: Sequence[str] | None = None
    whole_x: bool = False
    zero_line: bool = False
    empty: str = ""


def palette(count: int) -> list[Any]:
    """Return colors for `count` lines; they repeat after 20."""
    from matplotlib import colormaps

    colors = colormaps["tab10" if count <= 10 else "tab20"]
    return [colors(number % colors.N) for number in range(count)]


def draw(
    panels: Sequence[Panel],
    columns: int,
    size: tuple[float, float],
    height_ratios: Sequence[float] | None = None,
    share_x: bool = False,
) -> bytes:
    """Draw panels row by row into a PNG. `size` is in inches; `height_ratios` has one entry per row of panels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=160, layout="constrained")
    rows = -(-len(panels) // columns)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=share_x, height_ratios=height_ratios)
    for cell, panel in zip(axes.flat, panels, strict=True):
        _draw_panel(cell, panel)
    image = BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()


def _draw_panel(axes: "Axes", panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(panel.title, loc="left", fontsize=10, color=TEXT_COLOR, parse_math=False)
    axes.set_xlabel(panel.x_label, color=TEXT_COLOR, parse_math=False)
    axes.set_ylabel(panel.y_label, color=TEXT_COLOR, parse_math=False)
    if panel.whole_x:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    for points in panel.points:
        axes.errorbar(
            points.x,
            points.y,
            xerr=points.x_errors,
            yerr=points.y_errors,
            label=points.label[:LONGEST_LABEL],
            color=points.color,
            marker=points.marker,
            markersize=points.size,
            markerfacecolor="white" if points.hollow else points.color,
            linestyle="-" if points.joined else "none",
            linewidth=1.8,
            capsize=3,
            # Draw single points above lines.
            zorder=2 if points.joined else 3,
        )
    if panel.empty:
        axes.text(0.5, 0.5, panel.empty, transform=axes.transAxes, ha="center", va="center", color=BEFORE_COLOR)
    if panel.zero_line:
        axes.axvline(0, color=TEXT_COLOR, linewidth=0.8)
    if panel.x_names is not None:
        axes.set_xticks(range(len(panel.x_names)), panel.x_names, parse_math=False)
    if panel.y_names is not None:
        axes.set_yticks(range(len(panel.y_names)), panel.y_names, parse_math=False)
        axes.set_ylim(len(panel.y_names) - 0.5, -0.5)
    if panel.x_limits:
        axes.set_xlim(*panel.x_limits)
    if panel.y_limits:
        axes.set_ylim(*panel.y_limits)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=TEXT_COLOR)
    if any(points.label for points in panel.points):
        for text in axes.legend(frameon=False, fontsize=8.5, labelcolor=TEXT_COLOR).get_texts():
            text.set_parse_math(False)
