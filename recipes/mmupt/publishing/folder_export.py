"""Exports what a folder holds: the model of a run, or the questions of a synthesis."""

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

# Below the folder that is exported.
FOLDER = "hub"


@dataclass(frozen=True)
class Exported:
    """A folder as the hub gets it.

    folder: the folder. name: of the repository; the card has it, too. repo_type: what kind of repository it is for.
    warnings: what to know before it is given to others.
    """

    folder: Path
    name: str
    repo_type: RepoType
    warnings: list[str]

    def listing(self) -> str:
        """What is uploaded, with sizes in bytes, and the warnings."""
        names = hub_folder.names(self.folder)
        lines = [f"{self.folder}, for the {self.repo_type} {self.name}:"]
        lines += [f"  {(self.folder / name).stat().st_size:>14,}  {name}" for name in names]
        return "\n".join([*lines, *(f"Before you publish it: {warning}" for warning in self.warnings)])

    def upload(self, *, private: bool) -> str | None:
        """Upload it and return its address, or send nothing and return None without a token; raises as
        `hub_folder.upload`."""
        # Whether its token may write is for the hub to say.
        if get_token() is None:
            return None
        return hub_folder.upload(self.folder, self.name, self.repo_type, private=private)


def export(source: Path, target: Path | None = None, name: str | None = None, *, adapter: bool = False) -> Exported:
    """Write the folder for the hub.

    Args:
        source: folder of a run or of a synthesis.
        target: the folder to write; None for `hub` in `source`.
        name: of the repository; None for that of the folder.
        adapter: of a run, publish the LoRA adapter alone.

    Raises:
        ExportError: `source` holds nothing to publish or is in use, `name` is no name of a repository, or `target` has
            files of others.
        ValueError: a data file of the run cannot be read any more.
    """
    target, title = target or source / FOLDER, name or source.resolve().name
    if name is not None:
        hub_folder.check_name(name)
    if not is_run(source) and not is_synthesis(source):
        raise ExportError(f"{source} is the folder of no run and of no synthesis: it has no config.yaml of one")
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
    """Keep a run from starting in a folder."""
    lock = folder / LOCK
    with ExitStack() as held:
        # A copy of a folder may lack it.
        if lock.is_file():
            try:
                held.enter_context(exclusive_lock(lock, wait=False))
            except BlockingIOError:
                raise ExportError(f"{folder} is in use: wait until its run has ended") from None
        yield
