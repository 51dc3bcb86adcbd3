"""Counts the answerable questions among those a tiny model wrote, which is possible because figures can be redrawn.

For figures in the docs only: neither training nor filters may use it.

    mmupt tiny-model answerable runs/synthesis/model/candidates.jsonl --data datasets/figures/train.parquet
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from mmupt.synthesis.candidates import JudgedCandidate
from mmupt_data.figure_task import (
    FIGURES,
    Figure,
    FigureTask,
    Split,
    draw_figure,
    encode_png,
    recognise,
    sample_figures,
)


def figures_of(file: Path, split: Split, seed: int, task: FigureTask = FIGURES) -> dict[str, Figure]:
    """The figure of each row by its id, for a file of this split of the task, drawn with this seed.

    Raises:
        ValueError: a row has another picture.
    """
    rows = pq.read_table(file, columns=["id", "images"]).to_pylist()
    drawn = {encode_png(draw_figure(figure)): figure for figure in sample_figures(split, len(rows), seed, task)}
    try:
        return {row["id"]: drawn[row["images"][0]["bytes"]] for row in rows}
    except KeyError:
        raise ValueError(f"{file} has other figures than those of split {split} and seed {seed}") from None


def count_answerable(judged: Iterable[JudgedCandidate], figures: Mapping[str, Figure]) -> dict[str, tuple[int, int]]:
    """By what became of them, "kept" or the name of the filter, how many are answerable and how many there are."""
    total: Counter[str] = Counter()
    answerable: Counter[str] = Counter()
    for one in judged:
        outcome = one.dropped_by or "kept"
        total[outcome] += 1
        answerable[outcome] += recognise(figures[one.candidate.parent], one.candidate.question or "") is not None
    return {outcome: (answerable[outcome], count) for outcome, count in total.items()}


def answerable_lines(judged: Sequence[JudgedCandidate], figures: Mapping[str, Figure]) -> str:
    """A line for each strategy and outcome."""
    lines = []
    for strategy in dict.fromkeys(one.candidate.strategy for one in judged):
        counts = count_answerable((one for one in judged if one.candidate.strategy == strategy), figures)
        total = tuple(map(sum, zip(*counts.values(), strict=True)))
        for outcome, (part, whole) in {"all": total, **counts}.items():
            lines.append(f"{strategy}, {outcome}: {part} of {whole} can be answered ({100 * part / whole:.1f} %)")
    return "\n".join(lines)
