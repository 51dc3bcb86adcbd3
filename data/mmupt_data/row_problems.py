"""Checks a row as far as no model is needed. Pure: rows and bytes in, problems out.

`mmupt.training.row_checks` has the checks that depend on a model: the length of the prompt, and images smaller than a
visual token.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mmupt_data.row_schema import NO_QUESTION, PLACEHOLDER, Row
from verl_ext.control_text import control_texts, lost_characters
from verl_ext.counts import pluralize
from verl_ext.images import Change, ImageError, decode

ProblemKind = Literal[
    "no question", "broken text", "choices", "control text", "image tags", "no image", "unreadable image",
    "truncated image", "small image", "extreme aspect ratio", "huge image", "image mode", "duplicate",
    "no vision tower", "long prompt", "row",
]  # fmt: skip
_SURROGATE = re.compile("[\ud800-\udfff]")
# Above this, `smart_resize` of qwen_vl_utils and of transformers raises.
MAX_ASPECT_RATIO = 200.0
# Problems that are reported but do not drop a training row, because prompts handle them.
HARMLESS: frozenset[ProblemKind] = frozenset(("control text",))
# Problems that make a prompt impossible. An evaluation asks rows with any other problem.
UNANSWERABLE: frozenset[ProblemKind] = frozenset(
    (
        *("no image", "unreadable image", "truncated image", "huge image", "image mode"),
        *("no vision tower", "long prompt"),
    )
)


@dataclass(frozen=True)
class Problem:
    """Why a row cannot be used; messages append `detail` to the name of the row."""

    kind: ProblemKind
    detail: str


@dataclass(frozen=True)
class Rejected:
    """A row of a source that cannot become a `Row`; it keeps its position among the rows.

    `files` are the image files that the row names, if its source is a folder.
    """

    id: str
    problems: tuple[Problem, ...]
    files: tuple[str, ...] = ()


def files_of(row: Row | Rejected) -> list[str]:
    """The image files of a row, relative to their folder; empty for a row of a table."""
    if isinstance(row, Rejected):
        return list(row.files)
    return list((row.provenance and row.provenance.files) or ())


def place(row: int, id: str, files: Sequence[str]) -> str:
    """The name of a row in messages: its index in its file or folder, its id and its image files."""
    return f"row {row}, id {id}" + (f", file {', '.join(files)}" if files else "")


def problems_of(row: Row) -> list[Problem]:
    """All problems of a row; images are decoded in full."""
    return inspect(row)[0]


def inspect(row: Row) -> tuple[list[Problem], Counter[Change]]:
    """All problems of a row, and the number of its images per change by decoding."""
    problems = text_problems(row.question, row.choices)
    for text in (row.id, row.question_type, row.answer or ""):
        # JSON sources can hold lone surrogates, but the written files cannot.
        if _SURROGATE.search(text):
            problems.append(Problem("broken text", f"a lone surrogate in {text[:60]!r}"))
    if (row.question_type != NO_QUESTION or not row.images) and not row.question.replace(PLACEHOLDER, "").strip():
        problems.append(Problem("no question", "the question is empty"))
    if (tags := row.question.count(PLACEHOLDER)) != len(row.images):
        images = pluralize(len(row.images), "image")
        problems.append(Problem("image tags", f"{tags} {PLACEHOLDER} in the question, {images}"))
    changes: Counter[Change] = Counter()
    for index, image in enumerate(row.images):
        found, changed = _inspect(image, f"image {index}")
        problems += found
        changes.update(changed)
    return problems, changes


def text_problems(question: str, choices: tuple[str, ...] | None) -> list[Problem]:
    """Problems of the text: lost characters, control text, and missing options."""
    problems = []
    for text in (question, *(choices or ())):
        if lost := lost_characters(text):
            problems.append(
                Problem("broken text", f"{', '.join(f'U+{ord(sign):04X}' for sign in lost)} in {text[:60]!r}")
            )
    if control := list(dict.fromkeys(one for text in (question, *(choices or ())) for one in control_texts(text))):
        problems.append(Problem("control text", f"{', '.join(map(repr, control))} in {question[:60]!r}"))
    if choices is not None and (len(choices) < 2 or not all(choice.strip() for choice in choices)):
        problems.append(Problem("choices", f"of {len(choices)} options, none may be empty and two must be there"))
    return problems


def image_problems(image: bytes, name: str) -> list[Problem]:
    """Problems of an encoded image, which their details call `name`."""
    return _inspect(image, name)[0]


def _inspect(image: bytes, name: str) -> tuple[list[Problem], tuple[Change, ...]]:
    if not image:
        return [Problem("no image", f"{name} is empty")], ()
    try:
        decoded = decode(image)
    except ImageError as error:
        return [Problem(error.kind, f"{name} {error}")], ()
    width, height = decoded.image.size
    problems = []
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        detail = f"{name} has {width} x {height} px, over {MAX_ASPECT_RATIO:.0f} to 1"
        problems.append(Problem("extreme aspect ratio", detail))
    return problems, decoded.changes


# The key in a row's metadata that distinguishes versions of one problem.
VERSION = "problem_version"


class Duplicates:
    """Finds duplicates by 16-byte digests, so that memory suffices for data sets of any size."""

    def __init__(self) -> None:
        self._first: dict[bytes, str] = {}

    def check(self, row: Row) -> list[Problem]:
        """Report a row whose images, options and question (up to spacing) occurred before."""
        digest = hashlib.blake2b(digest_size=16)
        for image in row.images:
            digest.update(hashlib.blake2b(image).digest())
        # Versions of a problem may be equal on purpose.
        version = (row.metadata or {}).get(VERSION)
        digest.update(repr((row.question.split(), row.choices, version)).encode(errors="surrogatepass"))
        own = " ".join([row.id, *(f"({file})" for file in files_of(row))])
        first = self._first.setdefault(digest.digest(), own)
        return [] if first == own else [Problem("duplicate", f"the same question and images as row {first}")]
