"""A scripted policy that writes questions in place of vLLM, and the rows that it writes about."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from stand_in_engine import StandInEngine, content, write_training_rows

from mmupt.evaluation import response_cache
from mmupt.evaluation.generation import QuestionRequest
from mmupt.synthesis import run_synthesis
from mmupt.synthesis.run_synthesis import load_synthesis_config
from mmupt_data.figure_task import draw_figure, encode_png, sample_figures
from mmupt_data.row_schema import NO_QUESTION, Provenance, Row

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "recipes" / "mmupt" / "tiny" / "model"
PICTURES = [encode_png(draw_figure(figure)) for figure in sample_figures("train", 3, seed=0)]
ORIGIN = Provenance("some/repository", "c0ffee", "train", 7)
ROWS = [
    Row("a", "made-up", "<image>what is the sum ?", PICTURES[:1], "kind", "1", provenance=ORIGIN, licence="CC0"),
    Row("b", "made-up", "<image>and <image> ?", tuple(PICTURES[1:]), "kind", "2"),
    Row("c", "made-up", "<image>", (PICTURES[2],), NO_QUESTION, None),
    Row("d", "made-up", "what is one ?", (), "kind", "3"),
]


def write_rows(folder: Path) -> Path:
    """Write `ROWS` and return their file."""
    return write_training_rows(folder, ROWS)


class Engine(StandInEngine):
    """Writes different questions; its majority answer to each has 5 of 8 votes."""

    def respond(self, request: QuestionRequest, number: int) -> str:
        id_ = request.row["id"]
        if request.name == "questions":
            colour, shape = ("red", "green")[number % 2], {"a": "bar", "b": "box", "c": "cone"}[id_[0]]
            return f"Question: how many {colour} things are in this {id_.split('-')[1]} {shape} ?"
        if request.name == "self_check":
            return "no" if " red " in content(request) else "yes"
        return f"\\boxed{{{max(0, number - 4)}}}"


def synthesize(
    data: Path, output: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str, engine: Engine | None = None
) -> Engine:
    """Synthesize with the tiny preset and return the engine with its requests."""
    engine = engine or Engine()
    monkeypatch.setattr(response_cache, "answer_questions", engine.answers)
    run_synthesis.synthesize(
        load_synthesis_config([f"model={MODEL}", f"data={data}", f"output={output}", "preset=tiny", *overrides])
    )
    return engine


def rows_of(output: Path) -> list[dict[str, Any]]:
    """Return the rows that were synthesized into a folder."""
    return list(pq.read_table(output / "train.parquet").to_pylist())
