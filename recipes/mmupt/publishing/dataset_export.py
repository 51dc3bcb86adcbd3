"""Exports self-written questions for the hub: parquet with the hub's features, and a card."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import DictConfig, OmegaConf

from mmupt.publishing import ExportError, public_name
from mmupt.publishing.dataset_card import dataset_card
from mmupt.publishing.hub_folder import CARD, writing
from mmupt.synthesis.synthesized_dataset import CANDIDATES
from mmupt_data.row_schema import PROMPT_SCHEMA, prompts_path
from verl_ext.datasets.parquet_reader import in_batches, stored_rows
from verl_ext.files import write_atomically

# The hub's viewer reads whole row groups.
ROWS_PER_GROUP = 100


def is_synthesis(folder: Path) -> bool:
    """Whether a folder is the output of a synthesis."""
    return (folder / CANDIDATES).is_file() and (folder / "config.yaml").is_file()


def export_questions(synthesis: Path, target: Path, name: str) -> None:
    """Write the questions of a synthesis into a folder for the hub, with a card for a repository of this name.

    Raises:
        ExportError: the synthesis kept no question, or `target` has files that no export made.
    """
    config = OmegaConf.load(synthesis / "config.yaml")
    assert isinstance(config, DictConfig)
    questions = prompts_path(synthesis, str(config.name))
    if not questions.is_file():
        raise ExportError(f"{questions} is missing: the synthesis has not finished, or kept no question")
    with writing(target) as folder:
        (folder / "data").mkdir()
        rows, size = write_for_hub(questions, folder / "data" / f"{config.name}-00000-of-00001.parquet")
        card = dataset_card(synthesis, config, name, questions, features(), rows, size)
        write_atomically(folder / CARD, str(card))


def features() -> Any:
    """Return the columns of `mmupt_data.row_schema` as features of the `datasets` library, with decodable images."""
    # Imported lazily: `datasets` takes seconds to load.
    from datasets import Features, Image, List

    columns = Features.from_arrow_schema(PROMPT_SCHEMA)
    columns["images"] = List(Image())
    return columns


def write_for_hub(source: Path, target: Path) -> tuple[int, int]:
    """Copy a file of questions with the hub's features and without paths of this machine.

    Returns:
        The number of rows, and their size in memory in bytes.
    """
    schema = features().arrow_schema
    rows = size = 0
    with pq.ParquetWriter(target, schema, write_page_index=True) as writer:
        for group in in_batches(map(_for_hub, stored_rows(source, schema.names)), ROWS_PER_GROUP):
            table = pa.Table.from_pylist(group, schema)
            writer.write_table(table)
            rows, size = rows + table.num_rows, size + table.nbytes
    return rows, size


def _for_hub(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **row,
        "images": [{"bytes": image["bytes"], "path": None} for image in row["images"]],
        "provenance": dict(_public(row["provenance"], "source")) or None,
        "synthesis": dict(_public(row["synthesis"], "model")) or None,
    }


def _public(block: dict[str, Any] | None, name: str) -> Iterator[tuple[str, Any]]:
    for key, value in (block or {}).items():
        yield key, public_name(value) if key == name and value else value
