"""Counts how many of the questions written by a tiny model can be answered, by redrawing the figures from their seed.

Only for reported results: neither training nor filters may use it.

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
    """Return row id -> figure for a file of this split of the task, drawn with this seed.

    Raises:
        ValueError: a row has a different image.
    """
    rows = pq.read_table(file, columns=["id", "images"]).to_pylist()
    drawn = {encode_png(draw_figure(figure)): figure for figure in sample_figures(split, len(rows), seed, task)}
    try:
        return {row["id"]: drawn[row["images"][0]["bytes"]] for row in rows}
    except KeyError:
        raise ValueError(
            f"{file} has images other than the figures of split {split} and seed {seed}: give its --split, --seed and "
            "--task"
        ) from None


def count_answerable(judged: Iterable[JudgedCandidate], figures: Mapping[str, Figure]) -> dict[str, tuple[int, int]]:
    """Return outcome -> (answerable questions, all questions); an outcome is "kept" or the name of a filter."""
    total: Counter[str] = Counter()
    answerable: Counter[str] = Counter()
    for judgement in judged:
        outcome, candidate = judgement.dropped_by or "kept", judgement.candidate
        total[outcome] += 1
        answerable[outcome] += recognise(figures[candidate.parent], candidate.question or "") is not None
    return {outcome: (answerable[outcome], count) for outcome, count in total.items()}


def answerable_lines(judged: Sequence[JudgedCandidate], figures: Mapping[str, Figure]) -> str:
    """Return the counts as text, with one line per strategy and outcome."""
    lines = []
    for strategy in dict.fromkeys(judgement.candidate.strategy for judgement in judged):
        of_strategy = (judgement for judgement in judged if judgement.candidate.strategy == strategy)
        counts = count_answerable(of_strategy, figures)
        all_outcomes = tuple(map(sum, zip(*counts.values(), strict=True)))
        for outcome, (answerable, count) in {"all": all_outcomes, **counts}.items():
            percent = 100 * answerable / count
            lines.append(f"{strategy}, {outcome}: {answerable} of {count} can be answered ({percent:.1f} %)")
    return "\n".join(lines)
