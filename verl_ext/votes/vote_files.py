"""Vote files: the answers and pseudo-labels of a training step's groups, one parquet file per step. Pure.

`votes/12.parquet` in the run folder holds groups of step 12, one row per group (`SCHEMA`). The file's metadata, JSON
under the key `METADATA_KEY`, holds the schema's `version` and `train_files`, the files that the questions come from. A
group's images are those of the row there with its `id`.

    import pandas
    pandas.read_parquet("runs/mmupt_tiny/votes")
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from verl_ext.files import replacing
from verl_ext.votes.vote_record import VoteRecord

# Increment with every change of a column.
SCHEMA_VERSION = 1
METADATA_KEY = b"mmupt.votes"
SCHEMA = pa.schema(
    [
        # Training step that trained on the group.
        ("step", pa.int32()),
        # First and last policy that sampled it, as training steps completed by then; null if unknown.
        ("first_policy", pa.int32()),
        ("last_policy", pa.int32()),
        # Id of the question's row in the training data.
        ("id", pa.string()),
        # Text of the user messages as the policy saw it, without image placeholders.
        ("question", pa.string()),
        # Number of images.
        ("images", pa.int32()),
        # Options of a multiple-choice question, else null.
        ("choices", pa.list_(pa.string())),
        # All responses that voted, in session order.
        (
            "responses",
            pa.list_(
                pa.struct(
                    [
                        ("text", pa.string()),
                        # Null for a response without an answer.
                        ("answer", pa.string()),
                        # Rank of its class of equal answers, 0 for the largest; null without an answer.
                        ("class", pa.int32()),
                        ("reward", pa.float64()),
                        # False for a response that only voted (`vote_n`).
                        ("trained", pa.bool_()),
                        # Whether the answer equals the ground truth, False without an answer; null without a truth.
                        ("correct", pa.bool_()),
                    ]
                )
            ),
        ),
        # Outcome of the vote, see `verl_ext.votes.majority.Vote`.
        ("pseudo_label", pa.string()),
        ("majority_ratio", pa.float64()),
        ("tied", pa.bool_()),
        ("no_answer", pa.int32()),
        # Added once the rewards are final; null if unknown.
        ("ground_truth", pa.string()),
        # Whether the pseudo-label equals the ground truth; null if either is missing.
        ("label_correct", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class VotedResponse:
    """One response of a `VotedQuestion`. Its fields are those of the column `responses` except `class`."""

    text: str
    answer: str | None
    reward: float
    trained: bool
    correct: bool | None


@dataclass(frozen=True)
class VotedQuestion:
    """A question and its responses, as the agent loop sends it to the replay buffer. `SCHEMA` explains the fields."""

    id: str
    question: str
    images: int
    choices: Sequence[str] | None
    ground_truth: str | None
    responses: Sequence[VotedResponse]

    def to_json(self) -> str:
        """Serialize to JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "VotedQuestion":
        """Deserialize from JSON."""
        fields = json.loads(text)
        return cls(**{**fields, "responses": [VotedResponse(**response) for response in fields["responses"]]})


@dataclass(frozen=True)
class GroupOnFile:
    """A group of a training step.

    Attributes:
        policies: first and last policy that sampled it, in training steps; None if unknown.
    """

    voted: VotedQuestion
    record: VoteRecord
    policies: tuple[int, int] | None

    def row(self, step: int) -> dict[str, Any]:
        """Return the group's row of `SCHEMA`."""
        vote = self.record.vote
        class_of = {position: number for number, members in enumerate(vote.classes) for position in members}
        first, last = self.policies or (None, None)
        return {
            "step": step,
            "first_policy": first,
            "last_policy": last,
            **asdict(self.voted),
            "responses": [
                {**asdict(response), "class": class_of.get(number)}
                for number, response in enumerate(self.voted.responses)
            ],
            "pseudo_label": vote.pseudo_label,
            "majority_ratio": vote.majority_ratio,
            "tied": vote.tied,
            "no_answer": vote.no_answer,
            "label_correct": self.record.label_correct,
        }


class VoteFiles:
    """Writes the votes of a run in a separate thread.

    A step's file is replaced as a whole, so a killed run leaves no partial file and a resumed run no duplicate step.

    Args:
        per_step: number of groups to keep per step, None for all, 0 for none.
        train_files: the files that the questions come from.
    """

    def __init__(self, folder: Path, per_step: int | None, train_files: Iterable[str] = ()) -> None:
        self.per_step = per_step
        self._folder = folder
        self._train_files = [str(Path(file).absolute()) for file in train_files]
        self._step = 0
        self._groups: list[GroupOnFile] = []
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="votes")
        self._written: Future[None] | None = None

    def continue_from(self, step: int) -> None:
        """Remove the files of later steps, which the run repeats, and temporary files of a killed run."""
        for file in self._folder.glob("*.parquet.tmp"):
            file.unlink()
        for later, file in files_of_steps(self._folder).items():
            if later > step:
                file.unlink()

    def chosen(self, ids: Sequence[str]) -> list[int]:
        """Return the positions of a step's questions to keep: those whose ids have the smallest hashes.

        The same questions are then likely to be kept in every epoch and run, so their votes can be compared.
        """
        ordered = sorted(range(len(ids)), key=lambda position: _hash(ids[position]))
        return sorted(ordered[: self.per_step])

    def add(self, step: int, groups: Sequence[GroupOnFile]) -> None:
        """Add groups to a step's file once the previous file is written.

        Raises the exception that made the previous file fail, such as OSError for a full disk.
        """
        if step != self._step:
            self._step, self._groups = step, []
        together = [*self._groups, *groups]
        self._groups = [together[position] for position in self.chosen([group.voted.id for group in together])]
        self.flush()
        rows = [group.row(step) for group in self._groups]
        self._written = self._writer.submit(write_votes, self._folder / f"{step}.parquet", rows, self._train_files)

    def flush(self) -> None:
        """Wait until everything is written. Raises like `add`."""
        if self._written is not None:
            self._written.result()
            self._written = None


def write_votes(file: Path, rows: Sequence[Mapping[str, Any]], train_files: Sequence[str]) -> None:
    """Write the rows of a step atomically. Lone surrogates, which UTF-8 cannot hold, become "?"."""
    metadata = {METADATA_KEY: json.dumps({"version": SCHEMA_VERSION, "train_files": list(train_files)})}
    table = pa.Table.from_pylist([_encodable(row) for row in rows], SCHEMA.with_metadata(metadata))
    with replacing(file) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def files_of_steps(folder: Path) -> dict[int, Path]:
    """Return a folder's vote files by step, in the order of steps; empty if the folder does not exist."""
    files = {int(file.stem): file for file in folder.glob("*.parquet") if file.stem.isdigit()}
    return dict(sorted(files.items()))


def read_votes(file: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Read a step's groups, with all columns of `SCHEMA` or only `columns`.

    A column such as `responses.list.element.reward` selects a field of a nested column.

    Raises:
        ValueError: the file has another schema version or holds no votes.
    """
    with _opened(file) as opened:
        rows: list[dict[str, Any]] = opened.read(columns).to_pylist()
    return rows


def read_train_files(file: Path) -> list[Path]:
    """Return the files that a step's questions come from. Raises like `read_votes`."""
    with _opened(file) as opened:
        return [Path(name) for name in _metadata(file, opened)["train_files"]]


def _opened(file: Path) -> pq.ParquetFile:
    try:
        opened = pq.ParquetFile(file)
    except pa.ArrowException as error:
        raise ValueError(f"{file} is not a parquet file: {error}") from error
    version = _metadata(file, opened)["version"]
    if version != SCHEMA_VERSION:
        raise ValueError(f"{file} has version {version} of the vote schema; this release reads {SCHEMA_VERSION}")
    return opened


def _metadata(file: Path, opened: pq.ParquetFile) -> dict[str, Any]:
    content = (opened.schema_arrow.metadata or {}).get(METADATA_KEY)
    if content is None:
        raise ValueError(f"{file} holds no votes: its metadata has no {METADATA_KEY.decode()}")
    metadata: dict[str, Any] = json.loads(content)
    return metadata


def _hash(id_: str) -> bytes:
    return hashlib.blake2b(id_.encode(errors="surrogatepass"), digest_size=8).digest()


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, Mapping):
        return {name: _encodable(item) for name, item in value.items()}
    return [_encodable(item) for item in value] if isinstance(value, list | tuple) else value
