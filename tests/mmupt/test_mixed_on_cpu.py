"""On the real stack: batches mix rows with one image, with two, with options and with text alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from full_stack import scalars, train

from mmupt_data.figure_task import draw_figure, encode_png, sample_figures
from mmupt_data.row_schema import Row
from mmupt_data.writer import write_dataset

pytestmark = pytest.mark.full_stack

QUESTION = "what is the sum of the three bars ?"


def rows(split: str) -> list[Row]:
    """Four rows of each kind."""
    first, *others = [encode_png(draw_figure(figure)) for figure in sample_figures(split, 9, 0)]  # type: ignore[arg-type]
    made = []
    for index in range(4):
        with_image = Row(f"{split}-image-{index}", "mixed", f"<image>{QUESTION}", (others[index],), "image", "9")
        two = replace(
            with_image,
            id=f"{split}-two-{index}",
            question=f"<image><image>{QUESTION}",
            images=(first, others[4 + index]),
        )
        options = replace(with_image, id=f"{split}-options-{index}", images=(others[4 + index],), choices=("9", "10"))
        # A question twice would be a duplicate.
        text = replace(with_image, id=f"{split}-text-{index}", question=" ".join([QUESTION] * (index + 1)), images=())
        made += [with_image, two, options, text]
    return made


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    write_dataset(folder, {"train": rows("train"), "test": rows("test")}, {})
    return train(
        "mmupt_tiny",
        folder / "run",
        f"data.train_files={folder / 'train.parquet'}",
        f"data.val_files={folder / 'test.parquet'}",
        f"mmupt.evaluation_files={folder / 'test.parquet'}",
        "mmupt.evaluation_samples=2",
        # Both splits ask the same of text alone.
        "mmupt.leakage.allowed_pairs=null",
        "data.train_batch_size=8",
        "actor_rollout_ref.actor.ppo_mini_batch_size=8",
        "trainer.test_freq=2",
    )


def test_every_row_of_every_kind_is_trained_on_with_a_whole_group(run_folder: Path) -> None:
    for step in (1, 2):
        lines = (run_folder / "rollouts" / f"{step}.jsonl").read_text().splitlines()
        assert len(lines) == 8 * 4
    series = scalars(run_folder)
    assert series["vote/failed_responses"] == {1: 0.0, 2: 0.0}
    assert max(series["actor/rollout_probs_diff_mean"].values()) < 1e-4


def test_validation_and_report_answer_every_row(run_folder: Path) -> None:
    validated = (run_folder / "validation" / "2.jsonl").read_text().splitlines()
    assert len(validated) == 16
    responses = [json.loads(line) for line in (run_folder / "evaluation" / "after.jsonl").read_text().splitlines()]
    ids = {one["id"] for one in responses if "id" in one}
    assert ids == {f"test-{kind}-{index}" for kind in ("image", "two", "options", "text") for index in range(4)}
