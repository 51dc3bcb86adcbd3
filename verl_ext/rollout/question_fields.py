"""Reads the question of a row in this project's format or in veRL's own. Pure."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from verl_ext.datasets.message_parts import images_in, parts_of


def question_id(row: Mapping[str, Any]) -> str:
    """Return the id of a row, which is the same in every epoch and validation.

    A row without `id`, as written by veRL's scripts, is identified by a hash of its data source, messages and image
    bytes. A row without messages is identified by the `uid` that veRL assigns to a prompt.
    """
    if row.get("id") is not None:
        return str(row["id"])
    if row.get("raw_prompt") is None:
        return str(row["uid"])
    digest = hashlib.blake2b(str(row.get("data_source")).encode(), digest_size=16)
    for message in row["raw_prompt"]:
        for part in parts_of(message):
            digest.update(f"\0{message['role']}\0{part['type']}\0".encode())
            digest.update(_content(part.get("bytes") or part.get(part["type"])))
    return digest.hexdigest()


def _content(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    # Frames of a video.
    if isinstance(value, list | tuple):
        return b"\0".join(map(_content, value))
    # A decoded image, or text.
    return value.tobytes() if hasattr(value, "tobytes") else str(value).encode()


def text_of(row: Mapping[str, Any]) -> str:
    """Return the text of the user messages of a row's prompt as the policy sees it, without image placeholders."""
    return "\n".join(
        " ".join(part["text"].strip() for part in parts_of(message) if part["type"] == "text").strip()
        for message in row.get("raw_prompt") or ()
        if message["role"] == "user"
    )


def image_count(row: Mapping[str, Any]) -> int:
    """Return the number of images in the messages of a row's prompt."""
    return len(images_in(row.get("raw_prompt") or ()))


def choices_of(row: Mapping[str, Any]) -> list[str] | None:
    """Return the options of a row's question from `choices` or else `extra_info.choices`; None without either."""
    for choices in (row.get("choices"), (row.get("extra_info") or {}).get("choices")):
        # Some data sets have a string or a dict in a column of this name.
        if isinstance(choices, list | tuple | np.ndarray) and len(choices):
            return [str(choice) for choice in choices]
    return None


def function_arguments(row: Mapping[str, Any], response_info: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the arguments with which veRL calls a reward function on a row, except the text of the response.

    `extra_info` merges, from the highest to the lowest precedence, `response_info`, the row's `extra_info`, and the
    columns that describe the question together with the `metadata` of the ground truth.
    """
    reward_model = row.get("reward_model") or {}
    columns = {name: row.get(name) for name in ("id", "data_source", "prompt", "question_type", "choices")}
    own = row.get("extra_info") or {}
    return {
        "data_source": row.get("data_source"),
        "ground_truth": reward_model.get("ground_truth"),
        "extra_info": {**columns, "metadata": reward_model.get("metadata"), **own, **(response_info or {})},
    }
