"""Prompts of synthesis, baselines and judges: text files with `{name}` placeholders.

The texts that fill the placeholders are untrusted: they cannot close a tag of the prompt, or add an image or a special
token.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from mmupt_data.row_schema import PLACEHOLDER
from verl_ext.control_text import escaped

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_TAG = re.compile(r"<(?=/?[a-z_]+>)", re.IGNORECASE)


class PromptError(ValueError):
    """A prompt cannot be used; the message gives the reason and the fix."""


def read_prompt(name: str, folder: Path) -> str:
    """Read the prompt `folder/NAME.txt`, or the file `name` if it ends in `.txt`.

    Raises:
        PromptError: the file is missing, empty, or has an image placeholder.
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
    """Return the names of a template's placeholders."""
    return set(_PLACEHOLDER.findall(template))


def harmless(text: str) -> str:
    """Escape control text and tags, and replace lone surrogates."""
    return _TAG.sub("< ", escaped(encodable(text))).strip()


def encodable(text: str) -> str:
    """Replace lone surrogates, which JSON can hold and UTF-8 cannot, by "?"."""
    return text.encode(errors="replace").decode()


def fill_template(template: str, texts: Mapping[str, str], clean: Callable[[str], str] = harmless) -> str:
    """Fill every placeholder with its text.

    Args:
        template: the template.
        texts: placeholder name -> text.
        clean: escapes whatever in a text would act as more than text in the prompt.

    Raises:
        PromptError: the template's placeholders differ from the keys of `texts`.

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
