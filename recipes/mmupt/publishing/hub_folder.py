"""Writes and uploads the folder for the hub. Replaces only files that an earlier export made."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi
from huggingface_hub.utils import validate_repo_id

from mmupt.publishing import ExportError
from verl_ext.files import replacing, sha256, write_json

RepoType = Literal["model", "dataset"]
CARD = "README.md"
# Lists the files that an export made, with the checksum of the card. Not uploaded.
MARK = ".mmupt_export.json"


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """Yield a new folder, which replaces `folder` when the block ends.

    Raises:
        ExportError: `folder` has files that no export made, or its card was edited.
    """
    _check_own(folder)
    with replacing(folder) as temporary:
        temporary.mkdir()
        yield temporary
        write_json(temporary / MARK, {"files": names(temporary), CARD: sha256(temporary / CARD)})
        if folder.is_dir():
            shutil.rmtree(folder)


def names(folder: Path) -> list[str]:
    """Return the files to upload, as paths in the folder."""
    return sorted(
        str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file() and file != folder / MARK
    )


def check_name(name: str) -> None:
    """Raise ExportError with the hub library's message if a name is not a valid repository name."""
    try:
        validate_repo_id(name)
    except ValueError as error:
        raise ExportError(f"--push-to-hub: {error}") from error


def upload(folder: Path, name: str, repo_type: RepoType, *, private: bool) -> str:
    """Upload the files of a folder in one commit, create the repository if needed, and return its address.

    Raises:
        ExportError: `private` is set, but the repository exists and is public.
        OSError, httpx.HTTPError: the hub refuses a request or cannot be reached.
    """
    api = HfApi()
    repository = api.create_repo(name, repo_type=repo_type, private=True if private else None, exist_ok=True)
    if private and not api.repo_info(repository.repo_id, repo_type=repo_type).private:
        raise ExportError(f"{repository} exists and is public: make it private in its settings, or leave out --private")
    api.upload_folder(
        folder_path=folder,
        repo_id=repository.repo_id,
        repo_type=repo_type,
        commit_message="Upload by mmupt export",
        ignore_patterns=[MARK],
    )
    return str(repository)


def _check_own(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ExportError(f"{folder} is a file: name another folder with --output")
    mark = folder / MARK
    export = json.loads(mark.read_text()) if mark.is_file() else {"files": []}
    if foreign := [name for name in names(folder) if name not in export["files"]]:
        raise ExportError(
            f"{folder} has files that no export made, such as {foreign[0]}: name another folder with --output"
        )
    if (folder / CARD).is_file() and sha256(folder / CARD) != export[CARD]:
        raise ExportError(
            f"{folder / CARD} was edited after the export: upload the folder with your edits (`hf upload NAME {folder} "
            ".`), or remove the card to have it written again"
        )
