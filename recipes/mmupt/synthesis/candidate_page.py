"""One HTML page to look at: images with the questions that a model wrote about them, kept and dropped.

Questions are written by a model, and images come from anywhere: all text is escaped, and pictures are encoded anew.
"""

import html
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random

from mmupt.synthesis.candidates import JudgedCandidate
from mmupt.synthesis.source_rows import Parent
from mmupt_data.html_page import picture
from verl_ext.files import write_atomically

# A text on the page is cut here.
CHARACTERS_SHOWN = 1_000

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Questions that a model wrote</title>
<style>
body {{ font: 15px/1.4 sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em }}
section {{ border-top: 1px solid #ccc; padding: 1em 0; display: grid; grid-template-columns: 280px 1fr; gap: 1em }}
img {{ max-width: 100%; border: 1px solid #ddd }}
p {{ white-space: pre-wrap; overflow-wrap: anywhere; margin: 0 0 .6em }}
.dropped {{ color: #777 }}
small {{ display: block; color: #777 }}
</style>
<h1>Questions that a model wrote</h1>
<p>{shown} of {rows} rows, drawn with seed {seed}. Grey: dropped, with the reason.</p>
{sections}
</html>
"""


def write_sheet(
    file: Path, parents: Sequence[Parent], judged: Sequence[JudgedCandidate], shown: int, seed: int
) -> None:
    """Write the page, with `shown` rows drawn by `seed`, in their order."""
    by_parent: dict[str, list[JudgedCandidate]] = defaultdict(list)
    for one in judged:
        by_parent[one.candidate.parent].append(one)
    drawn = sorted(Random(seed).sample(range(len(parents)), min(shown, len(parents))))
    sections = [_section(parents[index], by_parent[parents[index].id]) for index in drawn]
    page = PAGE.format(shown=len(drawn), rows=len(parents), seed=seed, sections="\n".join(sections))
    write_atomically(file, page)


def _section(parent: Parent, judged: Sequence[JudgedCandidate]) -> str:
    pictures = "".join(map(picture, parent.images))
    asked = f"<p><b>{_text(parent.question)}</b></p>" if parent.question else ""
    questions = "".join(map(_question, judged))
    return f"<section><div>{pictures}</div><div><small>{_text(parent.id)}</small>{asked}{questions}</div></section>"


def _question(judged: JudgedCandidate) -> str:
    candidate = judged.candidate
    said = candidate.strategy
    if judged.vote_share is not None:
        said += f", vote share {judged.vote_share:.2f}"
    if judged.dropped_by is not None:
        said += f", {judged.dropped_by}: {judged.reason}"
    kind = "kept" if judged.kept else "dropped"
    return f'<p class="{kind}">{_text(candidate.question or candidate.response)}<small>{_text(said)}</small></p>'


def _text(text: str) -> str:
    return html.escape(text[:CHARACTERS_SHOWN])
