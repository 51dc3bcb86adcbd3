"""The output of a synthesis: the questions as a data set, and the outcome of every candidate.

Requests for questions can be written as a data set, too, to train a policy that writes questions.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from mmupt.synthesis.candidates import Candidate, JudgedCandidate
from mmupt.synthesis.source_rows import Parent
from mmupt_data.row_schema import PLACEHOLDER, Row, Synthesis, prompts_path
from mmupt_data.writer import WriteOptions, write_dataset
from verl_ext.files import write_json_lines

# File in the output folder with the outcome of every candidate.
CANDIDATES = "candidates.jsonl"
# Fields of a `JudgedCandidate` besides its candidate.
OUTCOME = ("dropped_by", "reason", "vote_share")


def write_candidates(file: Path, judged: Sequence[JudgedCandidate]) -> None:
    """Write one JSON line per candidate: its fields, `dropped_by`, `reason` and `vote_share`."""
    lines = ({**asdict(one.candidate), **{name: getattr(one, name) for name in OUTCOME}} for one in judged)
    write_json_lines(file, lines)


def read_candidates(file: Path) -> list[JudgedCandidate]:
    """Read what `write_candidates` wrote."""
    found = []
    for line in file.read_text().splitlines():
        content = json.loads(line)
        outcome = {name: content.pop(name) for name in OUTCOME}
        found.append(JudgedCandidate(Candidate(**content), **outcome))
    return found


def write_questions(
    folder: Path, name: str, parents: Sequence[Parent], judged: Sequence[JudgedCandidate], model: str, round: int
) -> Path:
    """Write the kept candidates to `NAME.parquet`, without a truth file, and return it.

    Equal questions about equal images, possible only with `copy_of_other` off, are dropped and listed in the manifest.
    """
    by_id = {parent.id: parent for parent in parents}

    def rows() -> Iterator[Row]:
        for one in judged:
            if one.kept:
                yield question_row(one, by_id[one.candidate.parent], model, round)

    parameters = {
        "synthesis": [asdict(one.candidate) | {"vote_share": one.vote_share} for one in judged if one.kept],
        "images": [parent.image for parent in parents],
        "model": model,
        "round": round,
    }
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()
    write_dataset(folder, {name: rows()}, {"synthesis": digest}, truth=False, options=WriteOptions("drop"))
    return prompts_path(folder, name)


def write_request_rows(folder: Path, name: str, asked: Mapping[str, tuple[Parent, str, str]]) -> Path:
    """Write requests (row, strategy and text by id) to `NAME.parquet`, without a truth file, and return it.

    Equal requests about equal images are dropped and listed in the manifest.
    """
    rows = (
        Row(
            id=id_,
            data_source=f"{parent.data_source}_{strategy}",
            question=PLACEHOLDER * len(parent.images) + text,
            images=parent.images,
            question_type=strategy,
            answer=None,
            provenance=parent.provenance,
            licence=parent.licence,
        )
        for id_, (parent, strategy, text) in asked.items()
    )
    parameters = [[id_, parent.image, text] for id_, (parent, _, text) in asked.items()]
    digest = hashlib.sha256(json.dumps(parameters).encode()).hexdigest()
    write_dataset(folder, {name: rows}, {"requests": digest}, truth=False, options=WriteOptions("drop"))
    return prompts_path(folder, name)


def question_row(judged: JudgedCandidate, parent: Parent, model: str, round: int) -> Row:
    """Build the row of a synthesized question, with the images and origin of its parent and no answer."""
    candidate = judged.candidate
    return Row(
        id=candidate.id,
        data_source=f"{parent.data_source}_{candidate.strategy}",
        question=PLACEHOLDER * len(parent.images) + (candidate.question or ""),
        images=parent.images,
        question_type=candidate.strategy,
        answer=None,
        provenance=parent.provenance,
        licence=parent.licence,
        synthesis=Synthesis(
            parent=parent.id,
            strategy=candidate.strategy,
            model=model,
            round=round,
            prompt_sha256=candidate.prompt_sha256,
            vote_share=judged.vote_share,
        ),
    )
