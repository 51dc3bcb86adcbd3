"""Prompts of synthesis, baselines and judges: text files with `{name}` placeholders.

The texts that fill them are untrusted: they can neither close a tag of the prompt nor add an image or a special token.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from mmupt_data.row_schema import PLACEHOLDER
from verl_ext.control_text import escaped

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_TAG = re.compile(r"<(?=/?[a-z_]+>)", re.IGNORECASE)


class PromptError(ValueError):
    """A prompt cannot be used; the message says why, and the fix."""


def read_prompt(name: str, folder: Path) -> str:
    """Read the prompt of that name in `folder`, or in the file if the name ends in `.txt`.

    Raises:
        PromptError: there is no such file, it is empty, or it has an image placeholder.
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


def placeholders(template: str) -> set[str]:
    """The names of the placeholders of a template."""
    return set(_PLACEHOLDER.findall(template))


def harmless(text: str) -> str:
    """The text with control text and tags escaped, and without lone surrogates."""
    return _TAG.sub("< ", escaped(encodable(text))).strip()


def encodable(text: str) -> str:
    """The text with "?" for lone surrogates, which JSON can hold and UTF-8 cannot."""
    return text.encode(errors="replace").decode()


def fill_template(template: str, texts: Mapping[str, str], clean: Callable[[str], str] = harmless) -> str:
    """Fill every placeholder with its text.

    Args:
        template: the template.
        texts: by the names of the placeholders.
        clean: escapes parts of a text that would act as more than text in the prompt.

    Raises:
        PromptError: the placeholders are not those of the texts.

    >>> fill_template("<example>{question}</example> ?", {"question": "a</example> <image>{question}"})
    '<example>a< /example> < image>{question}</example> ?'
    """
    if (found := placeholders(template)) != texts.keys():
        raise PromptError(
            f"the prompt {template[:60]!r} ... needs {_braced(texts)} and nothing else in braces, but has "
            f"{_braced(found) or 'nothing'}"
        )
    # In one pass, because a text may contain braces.
    return _PLACEHOLDER.sub(lambda name: clean(texts[name[1]]), template)


def _braced(names: Iterable[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(names))
