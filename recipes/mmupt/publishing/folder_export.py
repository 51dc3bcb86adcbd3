"""Exports the model of a run or the questions of a synthesis, whichever a folder holds."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import get_token
from omegaconf import OmegaConf

from mmupt.publishing import ExportError, hub_folder
from mmupt.publishing.dataset_export import export_questions, is_synthesis
from mmupt.publishing.hub_folder import RepoType
from mmupt.publishing.model_export import export_model, is_run
from mmupt.publishing.row_sources import row_sources, warnings
from mmupt.runtime.run_lock import LOCK
from mmupt_data.row_schema import prompts_path
from verl_ext.files import file_list
from verl_ext.locks import exclusive_lock

# Name of the default target, in the exported folder.
FOLDER = "hub"


@dataclass(frozen=True)
class Exported:
    """A folder that is ready for the hub.

    folder: the folder.
    name: name of the repository, also on the card.
    repo_type: type of the repository.
    warnings: licence problems to know before publishing.
    """

    folder: Path
    name: str
    repo_type: RepoType
    warnings: list[str]

    def listing(self) -> str:
        """Return the files to upload with their sizes in bytes, and the warnings."""
        names = hub_folder.names(self.folder)
        lines = [f"{self.folder}, for the {self.repo_type} {self.name}:"]
        lines += [f"  {(self.folder / name).stat().st_size:>14,}  {name}" for name in names]
        return "\n".join([*lines, *(f"Before you publish it: {warning}" for warning in self.warnings)])

    def upload(self, *, private: bool) -> str | None:
        """Upload the folder and return its address; without a token, send nothing and return None.

        Raises:
            ExportError, OSError, httpx.HTTPError: as `hub_folder.upload`.
        """
        # The hub checks whether the token may write.
        if get_token() is None:
            return None
        return hub_folder.upload(self.folder, self.name, self.repo_type, private=private)


def export(source: Path, target: Path | None = None, name: str | None = None, *, adapter: bool = False) -> Exported:
    """Write the folder for the hub.

    Args:
        source: folder of a run or of a synthesis.
        target: folder to write; None for `hub` in `source`.
        name: name of the repository; None for the name of `source`.
        adapter: whether to publish only the LoRA adapter of a run.

    Raises:
        ExportError: `source` has nothing to publish or is in use, `name` is not a valid repository name, or `target`
            has files that no export made.
        ValueError: a data file of the run can no longer be read.
    """
    target, title = target or source / FOLDER, name or source.resolve().name
    if name is not None:
        hub_folder.check_name(name)
    if not is_run(source) and not is_synthesis(source):
        raise ExportError(f"{source} is not the folder of a run or a synthesis: it has no config.yaml of either")
    if adapter and not is_run(source):
        raise ExportError("--adapter is for runs: a synthesis has no model")
    config = OmegaConf.load(source / "config.yaml")
    repo_type: RepoType
    with _unused(source):
        if is_run(source):
            export_model(source, target, title, adapter=adapter)
            repo_type, files = "model", [Path(file) for file in file_list(config.data.train_files)]
        else:
            export_questions(source, target, title)
            repo_type, files = "dataset", [prompts_path(source, str(config.name))]
    return Exported(target, title, repo_type, warnings(row_sources(files)))


@contextmanager
def _unused(folder: Path) -> Iterator[None]:
    """Keep runs from starting in a folder during the block; ExportError if a run is using it."""
    lock = folder / LOCK
    with ExitStack() as locks:
        # A copy of a folder may lack the lock file.
        if lock.is_file():
            try:
                locks.enter_context(exclusive_lock(lock, wait=False))
            except BlockingIOError:
                raise ExportError(f"{folder} is in use: wait for its run to end") from None
        yield
