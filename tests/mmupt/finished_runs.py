"""Run folders as training leaves them: event files, evaluations of four questions, and reports."""

from functools import cache
from pathlib import Path

from composed_recipes import shipped
from omegaconf import OmegaConf
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from mmupt.evaluation.response_files import Response, write_responses
from mmupt.training.recipe_table import run_folder
from mmupt.training.run_report import write_report
from mmupt_data.row_schema import Row
from mmupt_data.writer import write_dataset

TRUTH = ["1", "2", "3", "4"]
QUESTIONS = "the questions of the run"


def write_events(folder: Path, first_second: int, values: dict[str, dict[int, float]]) -> None:
    """Write an event file with the values of each metric by step, timestamped from `first_second` on."""
    writer = EventFileWriter(str(folder), filename_suffix=f".{first_second}")
    second = first_second
    for name, steps in values.items():
        for step, value in steps.items():
            second += 1
            summary = Summary(value=[Summary.Value(tag=name, simple_value=value)])
            writer.add_event(Event(wall_time=second, step=step, summary=summary))
    writer.close()


def write_test_rows(folder: Path) -> Path:
    """Write four questions to `test.parquet` and return the folder."""
    rows = [Row(f"q{number}", "made-up", f"what is {number} ?", (), "a", answer) for number, answer in enumerate(TRUTH)]
    write_dataset(folder, {"test": rows}, {})
    return folder


@cache
def _config_text(method: str) -> str:
    return OmegaConf.to_yaml(shipped("mmupt_tiny", f"method={method}", f"data.train_files='{QUESTIONS}'"))


def finish(folder: Path, recipe: str, seed: int, right_after: int, samples: int = 2) -> None:
    """Write a finished run with one right answer of four before training and `right_after` after it."""
    target = run_folder(folder, recipe, seed)
    for name, right in (("before", 1), ("after", right_after)):
        texts = [f"so \\boxed{{{answer if number < right else 9}}}" for number, answer in enumerate(TRUTH)]
        responses = [Response(f"q{number}", "greedy", 0, text, 5) for number, text in enumerate(texts)]
        responses += [
            Response(f"q{number}", "sample", sample, text, 5)
            for number, text in enumerate(texts)
            for sample in range(samples)
        ]
        parameters = {"data": {str(folder / "test.parquet"): "sha"}, "samples": samples, "temperature": 1.0}
        write_responses(target / "evaluation" / f"{name}.jsonl", responses, {"model": name, **parameters})
    write_report(target)
    _, _, method = {"vote": "", "random": "mmupt_tiny-random"}.get(recipe, recipe).partition("-")
    config = _config_text(method or "mmupt").replace(QUESTIONS, str(folder / "test.parquet"))
    (target / "config.yaml").write_text(config)


def cells(text: str, recipe: str, table: int = 0) -> list[str]:
    """The cells of a recipe's row in the table with this index."""
    line = [line for line in text.splitlines() if line.startswith(f"| {recipe} ")][table]
    return [cell.strip() for cell in line.strip("|").split("|")]
