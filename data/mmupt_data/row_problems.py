"""What can be wrong with a row before any model sees it. Pure: rows and bytes in, problems out.

What depends on a model, whether a prompt is too long, is not here but in `mmupt.training.row_checks`.
"""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mmupt_data.row_schema import NO_QUESTION, PLACEHOLDER, Row
from verl_ext.control_text import control_texts
from verl_ext.images import Change, ImageError, decode

Kind = Literal[
    "no question",
    "broken text",
    "choices",
    "control text",
    "image tags",
    "no image",
    "unreadable image",
    "truncated image",
    "small image",
    "extreme aspect ratio",
    "huge image",
    "image mode",
    "duplicate",
    "long prompt",
    "row",
]
# One merged patch of Qwen2.5-VL is 28 px wide. Smaller images are scaled up to it, so that little can be seen in them.
MIN_SIDE = 28
# `smart_resize` of qwen_vl_utils and of transformers raise above.
MAX_ASPECT_RATIO = 200.0
# Problems that are reported and no reason to drop a row of a training set: prompts take care of them.
HARMLESS: frozenset[Kind] = frozenset(("control text",))
# Problems because of which a model cannot be asked. With all others an evaluation asks all the same.
UNANSWERABLE: frozenset[Kind] = frozenset(
    ("no image", "unreadable image", "truncated image", "huge image", "image mode", "long prompt")
)


@dataclass(frozen=True)
class Problem:
    """Why a row cannot be used; `detail` says what was found, to be read after the name of the row."""

    kind: Kind
    detail: str


@dataclass(frozen=True)
class Rejected:
    """A row of a source that is no `Row` at all; it has a place in the order of rows all the same.

    `files` are the image files that it names, where its source is a folder.
    """

    id: str
    problems: tuple[Problem, ...]
    files: tuple[str, ...] = ()


def files_of(row: Row | Rejected) -> list[str]:
    """The image files of a row, as their folder names them; empty for a row of a table."""
    if isinstance(row, Rejected):
        return list(row.files)
    return list((row.provenance and row.provenance.files) or ())


def place(row: int, id: str, files: Sequence[str]) -> str:
    """Where a row is found again, for messages: its place in its file or folder, its id and its image files."""
    return f"row {row}, id {id}" + (f", file {', '.join(files)}" if files else "")


def problems_of(row: Row) -> list[Problem]:
    """Everything that is wrong with the row itself; images are decoded in full."""
    return inspect(row)[0]


def inspect(row: Row) -> tuple[list[Problem], Counter[Change]]:
    """Everything that is wrong with the row itself, and in how many of its images decoding changes what."""
    problems = text_problems(row.question, row.choices)
    if row.question_type != NO_QUESTION and not row.question.replace(PLACEHOLDER, "").strip():
        problems.append(Problem("no question", "the question is empty"))
    if (tags := row.question.count(PLACEHOLDER)) != len(row.images):
        problems.append(Problem("image tags", f"{tags} {PLACEHOLDER} in the question, {len(row.images)} images"))
    changes: Counter[Change] = Counter()
    for index, image in enumerate(row.images):
        of_image, changed = _inspect(image, f"image {index}")
        problems += of_image
        changes.update(changed)
    return problems, changes


def text_problems(question: str, choices: tuple[str, ...] | None) -> list[Problem]:
    """What is wrong with the words: signs were lost on the way, or options are missing."""
    problems = []
    for text in (question, *(choices or ())):
        if lost := sorted({sign for sign in text if _is_lost(sign)}):
            problems.append(
                Problem("broken text", f"{', '.join(f'U+{ord(sign):04X}' for sign in lost)} in {text[:60]!r}")
            )
    if control := list(dict.fromkeys(one for text in (question, *(choices or ())) for one in control_texts(text))):
        problems.append(Problem("control text", f"{', '.join(map(repr, control))} in {question[:60]!r}"))
    if choices is not None and (len(choices) < 2 or not all(choice.strip() for choice in choices)):
        problems.append(Problem("choices", f"of {len(choices)} options, none may be empty and two must be there"))
    return problems


def _is_lost(sign: str) -> bool:
    # The replacement character stands for bytes that were of another encoding; U+0085 is a line break.
    return sign == "\ufffd" or (unicodedata.category(sign) in ("Cc", "Cs") and sign not in "\t\n\r\x85")


def image_problems(image: bytes, name: str) -> list[Problem]:
    """What is wrong with an encoded image, called `name` in the details."""
    return _inspect(image, name)[0]


def _inspect(image: bytes, name: str) -> tuple[list[Problem], tuple[Change, ...]]:
    if not image:
        return [Problem("no image", f"{name} is empty")], ()
    try:
        decoded = decode(image)
    except ImageError as error:
        return [Problem(error.kind, f"{name} {error}")], ()
    width, height = decoded.image.size
    size = f"{name} has {width} x {height} px"
    problems = []
    if min(width, height) < MIN_SIDE:
        problems.append(Problem("small image", f"{size}, under {MIN_SIDE} at a side"))
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        problems.append(Problem("extreme aspect ratio", f"{size}, over {MAX_ASPECT_RATIO:.0f} to 1"))
    return problems, decoded.changes


# The key in the metadata of a row that tells versions of one problem apart.
VERSION = "problem_version"


class Duplicates:
    """Remembers rows by a digest of 16 bytes, so that a set of any size can be looked through."""

    def __init__(self) -> None:
        self._first: dict[bytes, str] = {}

    def check(self, row: Row) -> list[Problem]:
        """Say whether the same images with the same question, up to spacing, and options were there before."""
        digest = hashlib.blake2b(digest_size=16)
        for image in row.images:
            digest.update(hashlib.blake2b(image).digest())
        # Versions of one problem may be equal by design.
        version = (row.metadata or {}).get(VERSION)
        digest.update(repr((row.question.split(), row.choices, version)).encode(errors="surrogatepass"))
        own = " ".join([row.id, *(f"({file})" for file in files_of(row))])
        first = self._first.setdefault(digest.digest(), own)
        return [] if first == own else [Problem("duplicate", f"the same question and images as row {first}")]
