"""The row format of every data set.

`mmupt_data.row_problems` checks rows, `mmupt_data.writer` writes them.

A split has two parquet files: `NAME.parquet`, which the trainer reads and which has no answers, and
`NAME.truth.parquet`, which maps `id` to the ground truth for evaluations. Synthesized questions have no ground truth
and no second file.

Columns of `NAME.parquet`:
    id             str, unique across all splits of the data set
    data_source    str, the name of the data set
    prompt         list of messages {"role", "content"}; one "<image>" in the content per image, in order
    images         list of {"bytes"}, each an encoded image file, unchanged; empty for text-only questions
    question_type  str, a stratum for metrics
    choices        list of str, the options of the question in order; null without options
    provenance     {"source", "revision", "split", "row", "files"}: the hub repository or folder, its revision (null:
                   unknown), the split, the row in it from 0, and the image files in the folder, one per image (null:
                   the source is not a folder; absent in files of version 3); null for generated data
    licence        str, of the source in its own words; null: none stated, or unknown
    synthesis      {"parent", "strategy", "model", "round", "prompt_sha256", "vote_share"} of a synthesized question:
                   the id of its parent row, how and by which model it was written, the round of self-improvement, the
                   SHA-256 of the text of the prompt, and the majority ratio of quick responses (null: not measured);
                   null for all other questions. Files of version 2 lack the column

Columns of `NAME.truth.parquet`:
    id             str
    answer         str
    metadata       str, a JSON object with what scores and breakdowns need beside the answer; null for nothing
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from verl_ext.control_text import PLACEHOLDER as PLACEHOLDER
from verl_ext.datasets.parquet_reader import QUESTION_FIELDS

# Increment this when a column changes, so that older files are written again.
SCHEMA_VERSION = 4
# The question type of images without a question, which are for synthesis, not for training.
NO_QUESTION = "no_question"
PROMPT_SCHEMA = pa.schema(
    [
        *QUESTION_FIELDS,
        (
            "provenance",
            pa.struct(
                [
                    ("source", pa.string()),
                    ("revision", pa.string()),
                    ("split", pa.string()),
                    ("row", pa.int64()),
                    ("files", pa.list_(pa.string())),
                ]
            ),
        ),
        ("licence", pa.string()),
        (
            "synthesis",
            pa.struct(
                [
                    ("parent", pa.string()),
                    ("strategy", pa.string()),
                    ("model", pa.string()),
                    ("round", pa.int64()),
                    ("prompt_sha256", pa.string()),
                    ("vote_share", pa.float64()),
                ]
            ),
        ),
    ]
)
TRUTH_SCHEMA = pa.schema([("id", pa.string()), ("answer", pa.string()), ("metadata", pa.string())])


@dataclass(frozen=True)
class Provenance:
    """The origin of a row; see the columns of `NAME.parquet`."""

    source: str
    revision: str | None
    split: str
    row: int
    files: Sequence[str] | None = None


@dataclass(frozen=True)
class Synthesis:
    """The origin of a synthesized question; see the columns of `NAME.parquet`."""

    parent: str
    strategy: str
    model: str
    round: int
    prompt_sha256: str
    vote_share: float | None


@dataclass(frozen=True)
class Row:
    """A question with its images and its ground truth, before they are written to separate files.

    `question` has one "<image>" for each of `images`, which are encoded files. Rows without an `answer` are left out of
    the truth file. `metadata` holds JSON values.
    """

    id: str
    data_source: str
    question: str
    images: tuple[bytes, ...]
    question_type: str
    answer: str | None
    choices: tuple[str, ...] | None = None
    provenance: Provenance | None = None
    licence: str | None = None
    metadata: Mapping[str, Any] | None = None
    synthesis: Synthesis | None = None

    def without_answer(self) -> dict[str, Any]:
        """The row of `NAME.parquet`."""
        return {
            "id": self.id,
            "data_source": self.data_source,
            "prompt": [{"role": "user", "content": self.question}],
            "images": [{"bytes": image} for image in self.images],
            "question_type": self.question_type,
            "choices": None if self.choices is None else list(self.choices),
            "provenance": None if self.provenance is None else asdict(self.provenance),
            "licence": self.licence,
            "synthesis": None if self.synthesis is None else asdict(self.synthesis),
        }

    def truth(self) -> dict[str, str | None]:
        """The row of `NAME.truth.parquet`."""
        metadata = None if self.metadata is None else json.dumps(self.metadata, ensure_ascii=False, sort_keys=True)
        return {"id": self.id, "answer": self.answer, "metadata": metadata}


def user_text(prompt: Sequence[Mapping[str, str]]) -> str:
    """The text of all user messages of a prompt, image placeholders included."""
    return "\n".join(message["content"] for message in prompt if message["role"] == "user")


def question_text(prompt: Sequence[Mapping[str, str]]) -> str:
    """The question of a prompt: the text of its user messages without image placeholders."""
    return user_text(prompt).replace(PLACEHOLDER, " ").strip()


def prompts_path(folder: Path, split: str) -> Path:
    """The file that holds the questions of a split."""
    return folder / f"{split}.parquet"
