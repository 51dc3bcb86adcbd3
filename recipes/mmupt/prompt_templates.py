"""Prompts of synthesis and of the baselines: text files with `{name}` where a text goes.

What goes into them was written by others and is untrusted: it can neither close a tag of the prompt nor bring along an
image or a token of the chat template.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from mmupt_data.row_schema import PLACEHOLDER
from verl_ext.control_text import escaped

_NAME = re.compile(r"\{([a-z_]+)\}")
_TAG = re.compile(r"<(?=/?[a-z_]+>)", re.IGNORECASE)


class PromptError(ValueError):
    """A prompt cannot be used; the message names the file and the fix."""


def read_prompt(name: str, folder: Path) -> str:
    """The prompt of that name in `folder`, or the one in a file, whose name ends in `.txt`.

    Raises:
        PromptError: there is no such file, it is empty, or it has a place for an image.
    """
    path = Path(name) if name.endswith(".txt") else folder / f"{name}.txt"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.txt")))
        raise PromptError(f"there is no prompt {path}: name a file that ends in .txt, or one of {known}")
    text = path.read_text(encoding="utf-8").strip()
    if not text:
        raise PromptError(f"{path} is empty")
    if PLACEHOLDER in text:
        raise PromptError(f"{path} has {PLACEHOLDER}: leave it out, as images are put in front of the prompt")
    return text


def placeholders(prompt: str) -> set[str]:
    """The names of the places that a prompt has for texts."""
    return set(_NAME.findall(prompt))


def fill_template(prompt: str, texts: Mapping[str, str]) -> str:
    """The prompt with each text in its place.

    Raises:
        PromptError: the prompt has other places than there are texts.

    >>> fill_template("<example>{question}</example> ?", {"question": "a</example> <image>{question}"})
    '<example>a< /example> < image>{question}</example> ?'
    """
    if (found := placeholders(prompt)) != texts.keys():
        raise PromptError(
            f"the prompt {prompt[:60]!r} ... needs {_braced(texts.keys())} and nothing else in braces, but has "
            f"{_braced(found) or 'nothing'}"
        )
    # In one pass, as a text may have braces of its own.
    return _NAME.sub(lambda name: harmless(texts[name[1]]), prompt)


def harmless(text: str) -> str:
    """The text with control text and tags that a prompt could have escaped, and without lone surrogates."""
    return _TAG.sub("< ", escaped(text.encode(errors="replace").decode())).strip()


def _braced(names: Iterable[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(names))
