"""Folders for upload to the Hugging Face hub: a trained policy or self-written questions, each with its card.

Cards escape text that a model wrote and names from rows, and leave out paths of this machine. Only
`mmupt.publishing.hub_folder.upload` sends anything.
"""

from pathlib import Path


class ExportError(ValueError):
    """A folder cannot be published; the message names the folder or file, and the fix."""


def is_path(name: str) -> bool:
    """Whether the name of a model or data set is a folder or file instead of OWNER/NAME on the hub."""
    return name.startswith((".", "/", "~")) or name.count("/") != 1 or Path(name).exists()


def public_name(name: str) -> str:
    """Return a name without the folders of this machine: a path becomes its last part.

    >>> public_name("Qwen/Qwen2.5-VL-7B-Instruct"), public_name("/home/me/models/mine")
    ('Qwen/Qwen2.5-VL-7B-Instruct', 'mine')
    """
    return Path(name).name if is_path(name) else name
