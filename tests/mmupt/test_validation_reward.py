"""Validation during training and evaluation give the same verdict on a response."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from transformers import Qwen2VLImageProcessor
from verl.trainer.ppo.reward import get_custom_reward_fn

from mmupt.benchmarks import BENCHMARKS, read_questions
from mmupt.compose import load_recipe
from mmupt.datasets import data_set
from mmupt.evaluation.response_files import Response
from mmupt.evaluation.verdicts import verdicts_of
from verl_ext.datasets.unlabelled_dataset import UnlabelledDataset
from verl_ext.rewards.group_request import GroupRequest
from verl_ext.rollout.question_fields import function_arguments
from verl_ext.rollout.reward_manager import GroupRewardManager

# Variants of a correct answer; each rule accepts some of them.
WORDINGS = ("{}", " {} ", "({})", "{}.0", "{} cm", "0.5{}", "A", "(b)", "nearest", "")

SCALING = Qwen2VLImageProcessor(size={"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280})


class Words:
    """A tokenizer that decodes all tokens to the same text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def batch_decode(self, token_ids: list[list[int]], **_: Any) -> list[str]:
        return [self.text] * len(token_ids)


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name not in ("figures", "figures_hard")])
def test_validation_and_evaluation_give_the_same_verdict_on_every_wording(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "mmupt_data"))
    from hub_shaped import write

    data_set(name).prepare(tmp_path / name, str(write(tmp_path / "source", name, rows=8)))
    file = tmp_path / name / f"{BENCHMARKS[name].split}.parquet"
    keys = [f"data.val_files={file}", "data.instruction='Put it in \\boxed{}.'"]
    config, _ = load_recipe("mmupt_tiny", keys)
    OmegaConf.update(config.data, "cache_dir", str(tmp_path), force_add=True)
    tokenizer, processor = SimpleNamespace(added_tokens_decoder={}), SimpleNamespace(image_processor=SCALING)
    rows = UnlabelledDataset(str(file), config.data, tokenizer=tokenizer, processor=processor)
    questions = read_questions(file)
    verdicts = set()
    for row in (rows[index] for index in range(len(rows))):
        for wording in WORDINGS:
            text = f"so \\boxed{{{wording.format(questions[row['id']].truth)}}}"
            manager = GroupRewardManager(config, Words(text), get_custom_reward_fn(config))
            truth = row["reward_model"]["ground_truth"]
            request = GroupRequest([[0]], True, truth, row["choices"], function_arguments(row))
            (score,) = asyncio.run(manager.run_single(request))
            (verdict,) = verdicts_of([Response(row["id"], "greedy", 0, text)], questions)
            assert score.extra_info["acc"] == next(iter(verdict.right.values())), (row["id"], text)
            verdicts.add(tuple(verdict.right.values()))
    assert {right[0] for right in verdicts} == {True, False}


def test_without_a_reward_function_the_projects_comparison_decides() -> None:
    config, _ = load_recipe("mmupt_tiny", ["reward.custom_reward_function.path=null"])
    manager = GroupRewardManager(config, Words("so \\boxed{1/2}"), compute_score=None)
    row = {"id": "q", "data_source": "mathvista", "question_type": "free_form", "reward_model": {"ground_truth": "0.5"}}
    request = GroupRequest([[0]], True, "0.5", None, function_arguments(row))
    (score,) = asyncio.run(manager.run_single(request))
    assert score.reward == 1.0


def test_training_calls_no_reward_function() -> None:
    config, _ = load_recipe("mmupt_tiny", [])

    def fail(**_: Any) -> float:
        raise AssertionError("called")

    manager = GroupRewardManager(config, Words("so \\boxed{1}"), fail)
    scores = asyncio.run(manager.run_single(GroupRequest([[0], [1]], False)))
    assert [score.reward for score in scores] == [1.0, 1.0]
    assert OmegaConf.select(config, "reward.custom_reward_function.path")
