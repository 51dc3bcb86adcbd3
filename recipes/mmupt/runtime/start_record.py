"""Records the commands that started a run, with package versions, in `starts.jsonl` of the run folder."""

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from verl_ext import __version__
from verl_ext.files import json_line

FILE = "starts.jsonl"
# Distributions whose version affects results.
PACKAGES = ("verl", "vllm", "torch", "transformers", "peft", "trl", "flash-attn")
# Keys of overrides whose values may be credentials.
_SECRET = re.compile(r"env_vars|api_?key|secret|password|(^|[._])token$", re.IGNORECASE)


@dataclass(frozen=True)
class Start:
    """One start of a run: its shell `command`, and the `versions` of distributions by name."""

    command: str
    versions: dict[str, str]


def record_start(run_folder: Path, command: Sequence[str]) -> None:
    """Append a start, given the words of its command, to the record of a run.

    The home folder becomes `~`; values that may be credentials become `***`.
    """
    start = Start(shlex.join(map(_harmless, command)), {"verl-mmupt": __version__, **_versions()})
    with (run_folder / FILE).open("a") as file:
        file.write(json_line(asdict(start)))


def read_starts(run_folder: Path) -> list[Start]:
    """Return the recorded starts of a run, in order."""
    file = run_folder / FILE
    return [Start(**json.loads(line)) for line in file.read_text().splitlines()] if file.is_file() else []


def _harmless(word: str) -> str:
    key, equals, _ = word.partition("=")
    if equals and _SECRET.search(key):
        return f"{key}=***"
    home = str(Path.home())
    return word if home == "/" else word.replace(f"{home}/", "~/")


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
