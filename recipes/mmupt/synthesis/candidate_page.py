"""An HTML page of images with the kept and dropped questions about them."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random

from mmupt.reports.html_page import paragraph, pictures, section, shown, shown_question, write_page
from mmupt.synthesis.candidates import JudgedCandidate
from mmupt.synthesis.source_rows import Parent


def write_candidate_page(
    file: Path, parents: Sequence[Parent], candidates: Sequence[JudgedCandidate], rows: int, seed: int
) -> None:
    """Write a page of `rows` rows, drawn with `seed`, in their order."""
    by_parent: dict[str, list[JudgedCandidate]] = defaultdict(list)
    for filtered in candidates:
        by_parent[filtered.candidate.parent].append(filtered)
    drawn = sorted(Random(seed).sample(range(len(parents)), min(rows, len(parents))))
    write_page(
        file,
        "Questions that a model wrote",
        paragraph(f"{len(drawn)} of {len(parents)} rows, drawn with seed {seed}. Grey: dropped, with the reason."),
        *(_section(parents[index], by_parent[parents[index].id]) for index in drawn),
    )


def _section(parent: Parent, candidates: Sequence[JudgedCandidate]) -> str:
    question = f"<p><b>{shown_question(parent.question)}</b></p>" if parent.question else ""
    return section(
        pictures(parent.images), f"<small>{shown(parent.id)}</small>{question}{''.join(map(_candidate, candidates))}"
    )


def _candidate(filtered: JudgedCandidate) -> str:
    candidate = filtered.candidate
    notes = candidate.strategy
    if filtered.vote_share is not None:
        notes += f", vote share {filtered.vote_share:.2f}"
    if not filtered.kept:
        notes += f", {filtered.dropped_by}: {filtered.reason}"
    kind = "kept" if filtered.kept else "dropped"
    return f"{paragraph(candidate.question or candidate.response, kind)}<small>{shown(notes)}</small>"
