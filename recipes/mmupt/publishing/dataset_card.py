"""The card of self-written questions: the model and its prompts, the filters, and the sources of the images."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData
from omegaconf import DictConfig, OmegaConf

from mmupt.prompt_templates import PromptError, read_prompt
from mmupt.publishing import public_name
from mmupt.publishing.card_text import fenced
from mmupt.publishing.row_sources import RowSource, render, row_sources, warnings
from mmupt.reports.tables import code, escaped, markdown_table
from mmupt.synthesis import PROMPTS
from mmupt.synthesis.synthesis_report import render as render_facts
from mmupt.synthesis.synthesized_dataset import CANDIDATES, read_candidates
from verl_ext import __version__

EXAMPLES = 5
# The hub's size categories, each with the number of rows that it stays below.
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
LARGEST = "1M<n<10M"


def dataset_card(
    synthesis: Path, config: DictConfig, name: str, questions: Path, features: Any, rows: int, size: int
) -> DatasetCard:
    """Return the card of the questions of a synthesis.

    Args:
        synthesis: folder of the synthesis, with report and candidates.
        config: config of the synthesis.
        name: name of the repository.
        questions: file of the questions, with the licences of their images.
        features: features of the published file, from the `datasets` library.
        rows: number of rows of the published file.
        size: size of the published file in memory, in bytes.
    """
    from datasets import DatasetInfo, SplitDict, SplitInfo
    from datasets.info import DatasetInfosDict

    split = str(config.name)
    sources = row_sources([questions])
    metadata = DatasetCardData(
        license=sorted({source.hub_licence for source in sources}),
        task_categories=["image-text-to-text"],
        language_creators=["machine-generated"],
        annotations_creators=["no-annotation"],
        size_categories=[next((label for limit, label in SIZES if rows < limit), LARGEST)],
        source_datasets=sorted({source.repository for source in sources if source.repository}) or None,
        pretty_name=name.rpartition("/")[2],
        tags=["synthetic", "unlabelled", "mmupt"],
        configs=[{"config_name": "default", "data_files": [{"split": split, "path": f"data/{split}-*"}]}],
    )
    splits = SplitDict({split: SplitInfo(name=split, num_bytes=size, num_examples=rows)})
    info = DatasetInfo(features=features, splits=splits, dataset_size=size)
    DatasetInfosDict({"default": info}).to_dataset_card_data(metadata)
    parts = [
        f"# {escaped(name.rpartition('/')[2])}",
        f"{rows} questions that {code(public_name(str(config.model)))} wrote about images from other data sets, for "
        "training without labels. They have no answers, and nobody has checked that they can be answered.",
        "## Images\n\nThe images keep the licences of their sources, which every row names in `licence` and "
        "`provenance`.",
        render(sources),
        "## How the questions were made",
        markdown_table([("setting", "value"), *_settings(config)]),
        *_prompts(config),
        "## What was kept",
        _outcome(synthesis),
        "## Examples",
        markdown_table([("question", "strategy"), *_examples(synthesis)]),
        _limits(sources),
        f"Made by verl-mmupt {__version__}.",
    ]
    return DatasetCard(f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n")


def _settings(config: DictConfig) -> Iterator[tuple[str, str]]:
    yield "model", public_name(str(config.model))
    for key in ("strategies", "show_voted_answer", "round", "seed", "ask", "respond", "filters"):
        yield from _values(key, OmegaConf.to_container(config, resolve=True)[key])  # type: ignore[call-overload,index]


def _values(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the settings below a key; of a filter that is off, only that."""
    if not isinstance(value, dict):
        yield key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        return
    for name, setting in value.items():
        if value.get("enabled") is not False or name == "enabled":
            yield from _values(f"{key}.{name}", setting)


def _prompts(config: DictConfig) -> Iterator[str]:
    for key, name in config.prompts.items():
        try:
            text = fenced(read_prompt(str(name), PROMPTS), "text")
        except PromptError:
            text = f"The file {code(Path(str(name)).name)} no longer exists."
        yield f"Prompt {code(key)}, after the images:\n\n{text}"


def _outcome(synthesis: Path) -> str:
    facts = json.loads((synthesis / "report.json").read_text())
    # Without the title of the report.
    return render_facts(facts).partition("\n\n")[2]


def _examples(synthesis: Path) -> Iterator[tuple[str, str]]:
    candidates = (judged.candidate for judged in read_candidates(synthesis / CANDIDATES) if judged.kept)
    return ((" ".join((kept.question or "").split()), kept.strategy) for kept in islice(candidates, EXAMPLES))


def _limits(sources: Sequence[RowSource]) -> str:
    lines = ["- That the questions are right, useful or free of the faults of the model that wrote them."]
    lines += [f"- Whether you may use the images: {warning}." for warning in dict.fromkeys(warnings(sources))]
    return "## What this does not show\n\n" + "\n".join(lines)
