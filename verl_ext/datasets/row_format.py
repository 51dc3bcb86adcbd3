"""Converts the accepted forms of a row into the one form that this project uses. Reads image files, but no parquet.

`verl_ext.datasets.parquet_reader` reads the files of rows. docs/data.md lists the accepted forms for those who write
files.
"""

import base64
import binascii
import json
import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from verl_ext.control_text import PLACEHOLDER

# Media columns of veRL's datasets besides images. No recipe here shows them to a model.
OTHER_MEDIA = ("videos", "audios")
ROLES = ("system", "user", "assistant", "tool")
# Fields of an image given as a struct; the first that is not null is used.
IMAGE_KEYS = ("bytes", "path", "image", "image_url", "url")
# Fields that qwen_vl_utils reads besides an image; the recipe's limits replace them.
PIXEL_KEYS = ("min_pixels", "max_pixels", "resized_height", "resized_width")
IMAGES_ACCEPTED = (
    "accepted are the bytes of an image file, base64 or a data: URL of them, a path (absolute or relative to the "
    "parquet file), and a struct of bytes and path"
)
# Shorter base64 cannot be an image; longer text may still be a path.
SHORTEST_BASE64 = 64
# The longest path on Linux.
LONGEST_PATH = 4096

_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]+={0,2}\s*")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+://")
_DATA_URL = re.compile(r"data:([^,]*),", re.IGNORECASE)
# The fields of structs that this project writes; a column of this name with other fields is ignored.
_OWN_STRUCTS = {
    "provenance": {"source", "revision", "split", "row"},
    "synthesis": {"parent", "strategy", "model", "round", "prompt_sha256", "vote_share"},
}
# Fields that files of earlier versions lack.
_LATER_FIELDS = {"files"}


class RowFormatError(ValueError):
    """A value of a row has no accepted form; the message says what was found and what is accepted."""


def with_instruction(question: str, instruction: str | None) -> str:
    """The question as a model sees it: followed by a space and the instruction, if there is one."""
    return question if instruction is None else f"{question} {instruction}"


def canonical_row(raw: Mapping[str, Any], columns: Sequence[str], folder: Path, name: str, id_: str) -> dict[str, Any]:
    """Return the id and the `columns` of a row in the form of `data/mmupt_data/row_schema.py`.

    Args:
        raw: the row as Arrow returns it. Missing columns count as null; `image` stands for `images`.
        columns: some of `verl_ext.datasets.parquet_reader.COLUMNS`.
        folder: the base of relative image paths.
        name: the data source if the row has none.

    Raises:
        RowFormatError: a value has no accepted form.
    """
    if "prompt" in columns and (unread := [media for media in OTHER_MEDIA if any(_several(raw.get(media)))]):
        raise RowFormatError(f"it has {' and '.join(unread)}, which no model is shown here: leave it out")
    images = _several(raw.get("images", raw.get("image")))
    prompt: list[dict[str, str]] | None = None
    embedded: list[Any] = []
    if "prompt" in columns or ("images" in columns and not images and raw.get("prompt") is not None):
        prompt, embedded = _messages(raw.get("prompt"), len(images))
        if embedded and images:
            raise RowFormatError("images are in the prompt and in a separate column: leave one of them out")
    readers: Mapping[str, Callable[[], Any]] = {
        "data_source": lambda: name if raw.get("data_source") is None else text(raw["data_source"], "data_source"),
        "prompt": lambda: prompt,
        "images": lambda: [{"bytes": image} for image in images_bytes(embedded or images, folder)],
        "question_type": lambda: _question_type(raw),
        "choices": lambda: choices_texts(raw.get("choices")),
        "provenance": lambda: _own_struct(raw, "provenance"),
        "synthesis": lambda: _own_struct(raw, "synthesis"),
    }
    found = {column: readers[column]() if column in readers else raw.get(column) for column in columns}
    return {**found, "id": id_}


def id_text(value: Any) -> str:
    """An id as text: text, a whole number or a UUID.

    >>> id_text(7), id_text(7.0), id_text("a")
    ('7', '7', 'a')
    """
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool) and value == value // 1:
        return number_text(value)
    if isinstance(value, uuid.UUID):
        return str(value)
    return text(value, "id")


def number_text(value: int | float | Decimal) -> str:
    """A number as text; whole floats lose their decimals, because pandas makes floats of integers with gaps.

    >>> number_text(3), number_text(3.0), number_text(2.5)
    ('3', '3', '2.5')

    Raises:
        RowFormatError: it is a boolean.
    """
    if isinstance(value, bool):
        raise RowFormatError(f"{value} is neither text nor a number")
    return str(int(value)) if value == value // 1 else str(value)


def text(value: Any, name: str) -> str:
    """A text or UTF-8 bytes as text: older writers store text as bytes.

    Raises:
        RowFormatError: the value is null, of another type or not UTF-8; the message calls it `name`.
    """
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise RowFormatError(f"{name} is not UTF-8 text ({error})") from None
    if not isinstance(value, str):
        raise RowFormatError(f"{name} is {_kind(value)}, and must be text")
    return value


def text_or_number(value: Any, name: str) -> str:
    """A text or number as text; raises RowFormatError like `text`."""
    return number_text(value) if isinstance(value, (int, float, Decimal)) else text(value, name)


def choices_texts(value: Any) -> list[str] | None:
    """The options of a question as texts; None if there are none."""
    if value is None or value == []:
        return None
    if not isinstance(value, list):
        raise RowFormatError(f"choices is {_kind(value)}, and must be a list of texts")
    return [text_or_number(choice, "a choice") for choice in value]


def images_bytes(value: Any, folder: Path) -> list[bytes]:
    """The encoded images of a row: one value or a list of them, in any accepted form.

    Raises:
        RowFormatError: a value is a network address, a path without a file, or not an image.
    """
    return [_image_bytes(one, f"image {index}", folder) for index, one in enumerate(_several(value))]


def _several(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _image_bytes(value: Any, name: str, folder: Path) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return _from_text(value.strip(), name, folder)
    if isinstance(value, Mapping):
        if pixels := [key for key in PIXEL_KEYS if value.get(key) is not None]:
            raise RowFormatError(
                f"{name} has {', '.join(pixels)}: drop it, data.min_pixels and data.max_pixels scale all images alike"
            )
        for key in IMAGE_KEYS:
            if value.get(key) is not None:
                return _image_bytes(value[key], name, folder)
        raise RowFormatError(f"{name} is null in all of {', '.join(value) or 'nothing'}: {IMAGES_ACCEPTED}")
    raise RowFormatError(f"{name} is {_kind(value)}: {IMAGES_ACCEPTED}")


def _from_text(value: str, name: str, folder: Path) -> bytes:
    if match := _DATA_URL.match(value):
        content = value[match.end() :]
        return _decode_base64(content, name) if ";base64" in match[1].lower() else unquote_to_bytes(content)
    if _ADDRESS.match(value) and not value.lower().startswith("file://"):
        raise RowFormatError(
            f"{name} is the address {value[:80]!r}, and nothing is downloaded: save it to a file before, and give its "
            "path or its bytes"
        )
    path = unquote(urlsplit(value).path) if value.lower().startswith("file://") else value
    if 0 < len(path) <= LONGEST_PATH and os.path.isfile(folder / path):
        return (folder / path).read_bytes()
    if len(value) >= SHORTEST_BASE64 and _BASE64.fullmatch(value):
        return _decode_base64(value, name)
    raise RowFormatError(f"{name} is {value[:80]!r}, which names no file in {folder}: {IMAGES_ACCEPTED}")


def _decode_base64(value: str, name: str) -> bytes:
    compact = "".join(unquote(value).split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except binascii.Error as error:
        raise RowFormatError(f"{name} is not base64 ({error}): {value[:40]!r}") from None


def _messages(value: Any, images: int) -> tuple[list[dict[str, str]], list[Any]]:
    """The messages of a prompt with text contents, and the images from their parts."""
    if isinstance(value, (str, bytes)):
        value = text(value, "prompt")
        messages = _as_json_messages(value)
        if messages is None:
            # Plain text has no parts that place the images.
            front = "" if PLACEHOLDER in value else PLACEHOLDER * images
            return [{"role": "user", "content": front + value}], []
        value = messages
    if isinstance(value, Mapping):
        value = [value]
    if not value or not isinstance(value, list):
        raise RowFormatError(f"prompt is {_kind(value)}, and must be text or a list of messages with role and content")
    embedded: list[Any] = []
    found = [_message(message, f"message {index} of the prompt", embedded) for index, message in enumerate(value)]
    if found[-1]["role"] != "user":
        raise RowFormatError(f"the last message of the prompt is of {found[-1]['role']!r}, and must be of 'user'")
    placeholders = sum(message["content"].count(PLACEHOLDER) for message in found)
    if embedded and placeholders != len(embedded):
        raise RowFormatError(
            f"{len(embedded)} images are in the parts of the prompt, and {placeholders} places for them"
        )
    return found, embedded


def _as_json_messages(value: str) -> list[dict[str, Any]] | None:
    """The messages that a text spells out as JSON; None for any other text."""
    if not value.lstrip().startswith("["):
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    is_messages = found and all(isinstance(one, dict) and {"role", "content"} <= one.keys() for one in found)
    return found if is_messages else None


def _message(message: Any, name: str, embedded: list[Any]) -> dict[str, str]:
    if not isinstance(message, Mapping):
        raise RowFormatError(f"{name} is {_kind(message)}, and must have role and content")
    keys = [key for key, value in message.items() if value is not None]
    if not {"role", "content"} <= set(keys):
        raise RowFormatError(f"{name} has {', '.join(keys) or 'nothing'}, and must have role and content, not null")
    if unknown := [key for key in keys if key not in ("role", "content")]:
        raise RowFormatError(f"{name} has {', '.join(unknown)}, and nothing is read but role and content: leave it out")
    role, content = text(message["role"], f"the role of {name}"), message["content"]
    if role not in ROLES:
        raise RowFormatError(f"{name} has the role {role!r}, which is none of {', '.join(ROLES)}")
    if isinstance(content, Mapping):
        content = [content]
    if isinstance(content, list):
        content = "".join(_part(part, name, embedded) for part in content)
    return {"role": role, "content": text(content, f"the content of {name}")}


def _part(part: Any, name: str, embedded: list[Any]) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise RowFormatError(f"a part of {name} is {_kind(part)}, and must be text, or an object with type")
    # A column of parts has the keys of all rows; a part's missing keys are null.
    held = {key: value for key, value in part.items() if value is not None}
    kind = held.pop("type", "text" if "text" in held else None)
    if kind == "text" and "text" in held:
        return text(held["text"], f"a part of {name}")
    if kind in ("image", "image_url"):
        if image := {key: value for key, value in held.items() if key in (*IMAGE_KEYS, *PIXEL_KEYS)}:
            embedded.append(image)
        return PLACEHOLDER
    raise RowFormatError(
        f"a part of {name} has the type {kind!r} and {', '.join(held) or 'nothing else'}: accepted are text and image"
    )


def _question_type(raw: Mapping[str, Any]) -> str:
    if raw.get("question_type") is None:
        return "free_form" if choices_texts(raw.get("choices")) is None else "multi_choice"
    return text(raw["question_type"], "question_type")


def _own_struct(raw: Mapping[str, Any], column: str) -> dict[str, Any] | None:
    value = raw.get(column)
    if isinstance(value, Mapping) and value.keys() - _LATER_FIELDS == _OWN_STRUCTS[column]:
        return dict(value)
    return None


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return "an empty list" if value == [] else f"of type {type(value).__name__} ({str(value)[:40]!r})"
