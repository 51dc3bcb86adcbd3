"""Folders as the Hugging Face hub gets them: a trained policy or self-written questions, each with its card.

Text that a model wrote, and names from rows, are escaped on a card, and paths of this machine are left out. Nothing is
sent but by `mmupt.publishing.hub_folder.upload`.
"""

from pathlib import Path


class ExportError(ValueError):
    """Nothing can be published; the message names the folder or file, and the fix."""


def is_path(name: str) -> bool:
    """Whether a name of a model or of a data set is a folder or file, rather than OWNER/NAME on the hub."""
    return name.startswith((".", "/", "~")) or name.count("/") != 1 or Path(name).exists()


def public_name(name: str) -> str:
    """A name without what it tells about this machine: of a path, only the last part is left.

    >>> public_name("Qwen/Qwen2.5-VL-7B-Instruct"), public_name("/home/me/models/mine")
    ('Qwen/Qwen2.5-VL-7B-Instruct', 'mine')
    """
    return Path(name).name if is_path(name) else name
