"""Pages that list every key of the configuration with its default and the comment above it, read from the YAML files.

A key without a comment in a file has no meaning on its page, even if another file explains it.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from mmupt.key_sources import DocumentedKey, documented_keys, header
from mmupt.recipe_files import CONFIG_FOLDER, FOUNDATIONS, GROUPS

EVALUATION = CONFIG_FOLDER.parent / "evaluation" / "config"
SYNTHESIS = CONFIG_FOLDER.parent / "synthesis" / "config"


def pages() -> dict[str, str]:
    """Return the pages of the configuration reference as Markdown, by path on the site."""
    recipes = [file for file in sorted(CONFIG_FOLDER.glob("*.yaml")) if file.stem not in FOUNDATIONS]
    options = [file for group in GROUPS for file in sorted((CONFIG_FOLDER / group).rglob("*.yaml"))]
    return {
        "reference/recipe_settings.md": _page(
            "Settings of a recipe",
            "What every recipe starts from; keys that are not listed have veRL's defaults, and "
            "`mmupt recipes --explain KEY RECIPE` shows where the value of any key comes from.",
            [CONFIG_FOLDER / f"{name}.yaml" for name in FOUNDATIONS],
        ),
        "reference/recipe_options.md": _page(
            "Options of a recipe", "Each option of `method=`, `dataset=`, `model=`, `hardware=` and `+async=`.", options
        ),
        "reference/recipe_list.md": _page("Recipes", "What each recipe sets on top of its options.", recipes),
        "reference/evaluation_settings.md": _page(
            "Settings of an evaluation", "The keys of `mmupt eval`.", sorted(EVALUATION.rglob("*.yaml"))
        ),
        "reference/synthesis_settings.md": _page(
            "Settings of a synthesis", "The keys of `mmupt synthesize`.", sorted(SYNTHESIS.rglob("*.yaml"))
        ),
    }


def _page(title: str, summary: str, files: Iterable[Path]) -> str:
    sections = [f"# {title}", summary]
    for file in files:
        top = next(parent for parent in file.parents if parent.name == "config")
        sections += [f"## {file.relative_to(top)}", *map(_paragraph, header(file).split("\n\n"))]
        if keys := documented_keys(file):
            rows = ["| key | default | meaning |", "|---|---|---|", *map(_row, keys)]
            sections.append("\n".join(rows))
    return "\n\n".join(sections) + "\n"


def _paragraph(text: str) -> str:
    """Return a paragraph of a comment as Markdown, as a code block if it has columns or a list."""
    return f"```text\n{text}\n```" if re.search(r"\S {2,}\S|^ ", text, re.MULTILINE) else _as_text(text)


def _row(key: DocumentedKey) -> str:
    value = f"`{_escaped(key.value)}`" if key.value is not None else ""
    return f'| <span id="{key.name}"></span>`{key.name}` | {value} | {_as_text(key.comment)} |'


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'")


def _as_text(comment: str) -> str:
    """Escape all characters of a comment that Markdown or HTML would interpret."""
    for character in "\\`*_{}[]<>|":
        comment = comment.replace(character, f"&#{ord(character)};")
    return comment
