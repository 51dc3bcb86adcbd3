"""Values of make's variables reach the programs unchanged, whatever characters they contain."""

import subprocess
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmupt.evaluation.evaluate import load_evaluation_config as evaluation
from mmupt.synthesis.run_synthesis import load_synthesis_config as synthesis

ODD = 'my folder/it\'s "x" [1] a=b'


@pytest.fixture
def arguments(tmp_path: Path):
    """A function that returns the Python arguments of a make target, without running setup or the program."""
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)

    def run(*target: str) -> list[str]:
        command = ["make", "-s", "-o", "setup", f"python={program}", *target]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    return run


def test_a_model_path_may_have_any_characters(arguments) -> None:
    words = arguments("eval", f"MODEL={ODD}")
    assert words[:3] == ["-m", "mmupt", "eval"] and evaluation(words[3:]).model == ODD
    assert evaluation(arguments("eval")[3:]).model == "recipes/mmupt/tiny/model"


def test_data_and_folder_paths_may_have_any_characters(arguments) -> None:
    config = synthesis(arguments("synthesize", f"MODEL={ODD}", f"DATA={ODD}.parquet")[3:])
    assert OmegaConf.to_container(config)["data"] == f"{ODD}.parquet"
    assert arguments("data", "DATASET=images", "SOURCE=my photos")[-1] == "my photos"
    assert arguments("compare", "A=a b", "B=b c", "OUT=c d")[3:] == ["a b", "b c", "--output", "c d"]
    assert "my table" in arguments("table", "TABLE=my table")


def test_args_keep_quotes_and_spaces(arguments) -> None:
    value = "\"data.train_files='my data/a=b [1].parquet'\" trainer.total_training_steps=3"
    assert arguments("train", f"ARGS={value}")[-2:] == [
        "data.train_files='my data/a=b [1].parquet'",
        "trainer.total_training_steps=3",
    ]
