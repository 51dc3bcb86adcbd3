"""Messages of a prompt: a list of `role` and `content`, which is a text or a list of parts with a `type`. Pure.

An assistant message that calls tools may have the content None.
"""

from collections.abc import Iterable, Mapping
from typing import Any

Message = Mapping[str, Any]


def parts_of(message: Message) -> list[dict[str, Any]]:
    """The parts of a message; a text is one part."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or []


def images_in(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """The parts of messages that are images."""
    return [part for message in messages for part in parts_of(message) if part["type"] == "image"]


def copied(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """A copy of messages that shares their images."""
    return [
        {**message, "content": list(map(dict, content)) if isinstance(content := message["content"], list) else content}
        for message in messages
    ]
