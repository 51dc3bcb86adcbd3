"""Messages of a prompt: each has a `role` and a `content`, which is a text or a list of parts with a `type`. Pure.

The content of an assistant message that calls tools may be None.
"""

from collections.abc import Iterable, Mapping
from typing import Any

Message = Mapping[str, Any]


def parts_of(message: Message) -> list[dict[str, Any]]:
    """The parts of a message; a text counts as one part."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or []


def images_in(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """The image parts of messages."""
    return [part for message in messages for part in parts_of(message) if part["type"] == "image"]


def copied(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """A copy of messages that shares their images."""
    return [
        {**message, "content": list(map(dict, content)) if isinstance(content := message["content"], list) else content}
        for message in messages
    ]
