"""How tables and plots look, in every report. What they show is for the module that writes the report.

matplotlib is imported by those who draw, when they do: no training needs it.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEFORE_COLOR, AFTER_COLOR, TEXT_COLOR = "#8c8c8c", "#d1495b", "#333333"
LINE_COLORS = ("#1f6f9f", "#5b8c5a", "#8e6bab", "#b07d3c")


def aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows of cells, the first being the head, as a Markdown table whose columns line up in plain text, too."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def tidy(axes: "Axes") -> None:
    """Give axes a light grid and no frame above and to the right, and a legend where something is labelled."""
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=TEXT_COLOR)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=8.5, labelcolor=TEXT_COLOR)


def as_png(figure: "Figure") -> bytes:
    """A figure as the content of a PNG file."""
    image = BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()
