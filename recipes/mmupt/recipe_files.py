"""Finds the YAML files of recipes and of the options of their config groups, and reads their headers.

Does not parse YAML and imports only the standard library: shell completion lists recipes and options at every key
press. `mmupt.compose` reads and composes the files.
"""

import os
from pathlib import Path

CONFIG_FOLDER = Path(__file__).parent / "config"

# Holds the value of `--config-dir`, a second config folder; child processes of a command inherit it.
CONFIG_DIR_VARIABLE = "MMUPT_CONFIG_DIR"

# Files that recipes build on, but that are not recipes.
FOUNDATIONS = ("base", "baseline")

# All config groups, in listing order.
GROUPS = ("method", "dataset", "model", "hardware", "async")


def config_folders() -> list[Path]:
    """Return our config folder, followed by the second one if it is set."""
    own = os.environ.get(CONFIG_DIR_VARIABLE)
    return [CONFIG_FOLDER, Path(own)] if own else [CONFIG_FOLDER]


def config_files(folder: Path) -> list[Path]:
    """Return the files of recipes and options in a folder, sorted; other subfolders are ignored."""
    return sorted([*folder.glob("*.yaml"), *(file for group in GROUPS for file in (folder / group).rglob("*.yaml"))])


def config_file(name: str) -> Path:
    """Return the file of a recipe or GROUP/OPTION; a missing one would be in our folder."""
    files = [folder / f"{name}.yaml" for folder in config_folders()]
    return next((file for file in files if file.is_file()), files[0])


def recipes() -> dict[str, str]:
    """Return every recipe with the first line of its header, sorted by name."""
    return {name: summary for name, summary in _summaries("").items() if name not in FOUNDATIONS}


def options(group: str) -> dict[str, str]:
    """Return every option of a config group with the first line of its header, sorted by name."""
    return _summaries(group)


def as_written(group: str) -> str:
    """Return a group as an override names it: recipes choose no option of `async`, so an override must add it."""
    return f"+{group}" if group == "async" else group


def _summaries(group: str) -> dict[str, str]:
    found = {}
    files = [file for folder in config_folders() for file in (folder / group).glob("*.yaml")]
    for file in sorted(files, key=lambda file: file.stem):
        lines = file.read_text().splitlines()
        found[file.stem] = next((line[2:] for line in lines if line.startswith("# ") and "@package" not in line), "")
    return found


def listing() -> str:
    """Return all recipes and the options of all groups, one line each."""
    known, groups = recipes(), {group: options(group) for group in GROUPS}
    width = max(len(name) for names in (known, *groups.values()) for name in names)
    lines = [f"{name:{width}}  {summary}" for name, summary in known.items()]
    for group, summaries in groups.items():
        lines += ["", f"{as_written(group)}=", *(f"{name:{width}}  {summary}" for name, summary in summaries.items())]
    return "\n".join(lines)
