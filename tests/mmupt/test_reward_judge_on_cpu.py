"""A reward that needs judgements: a judge on loopback is asked about every response of a group."""

import asyncio
import base64
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from judge_server import Said, serve
from omegaconf import DictConfig
from openai import APIStatusError
from PIL import Image
from transformers import AutoTokenizer
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

from mmupt.compose import compose_recipe, load_recipe
from mmupt_data.figure_task import encode_png
from verl_ext.datasets.encoded_image import EncodedImage
from verl_ext.rewards.group_request import GroupRequest
from verl_ext.rewards.judgements import judge_prompt
from verl_ext.rewards.self_judge import judge_factor
from verl_ext.rollout.reward_manager import GroupRewardManager

# As the dataset hands it to the rollout.
IMAGE = EncodedImage(encode_png(Image.new("RGB", (2, 3))), canvas=(2, 3))
PROMPT = [{"role": "user", "content": [{"type": "image", "image": IMAGE}, {"type": "text", "text": " how many ? "}]}]


@pytest.fixture(scope="module")
def config() -> DictConfig:
    return load_recipe("mmupt_tiny", ["method=self_judge"])[0]


def text_of(prompt: Any) -> str:
    return str(prompt[-1]["text"])


def rewards(config: DictConfig, url: str, *responses: str) -> list[float]:
    tokenizer = AutoTokenizer.from_pretrained(config.actor_rollout_ref.model.path)
    address = url.removeprefix("http://").removesuffix("/v1")
    manager = GroupRewardManager(config, tokenizer, compute_score=None, reward_router_address=address)
    token_ids = [tokenizer.encode(response) for response in responses]
    request = GroupRequest(token_ids, validate=False, prompt=judge_prompt(PROMPT))
    return [score.reward for score in asyncio.run(manager.run_single(request))]


def test_the_judge_sees_the_images_the_question_and_the_answer_and_its_verdicts_modulate_the_reward(
    config: DictConfig,
) -> None:
    with serve(lambda prompt, _: Said("3 . yes" if " 3 " in text_of(prompt) else "no")) as server:
        found = rewards(config, server.url, r"so \boxed{3}", r"so \boxed{3}", r"so \boxed{4}", "so")
    assert found == pytest.approx([0.5 * judge_factor(1.0)] * 2 + [0.25 * judge_factor(0.0), 0.0])
    assert sorted(map(text_of, server.prompts)) == sorted(
        ["how many ? is 3 right ?", "how many ? is 3 right ?", "how many ? is 4 right ?", "how many ? is  right ?"]
    )
    image = server.prompts[0][0]["image_url"]["url"].removeprefix("data:image/png;base64,")  # type: ignore[index]
    assert Image.open(BytesIO(base64.b64decode(image))).size == (2, 3)
    (asked,) = {
        (one["model"], one["n"], one["temperature"], one["top_p"], one["max_tokens"]) for one in server.requests
    }
    assert asked == (config.actor_rollout_ref.model.path, 1, 1.0, 0.9, 48)


def test_a_failure_that_may_pass_is_asked_again_and_another_one_ends_the_group(config: DictConfig) -> None:
    with serve(lambda _, count: Said(status=503) if count == 0 else Said("yes")) as server:
        assert rewards(config, server.url, r"so \boxed{3}", r"so \boxed{4}") == pytest.approx(
            [0.5 * judge_factor(1.0)] * 2
        )
    with serve(lambda *_: Said(status=400)) as server, pytest.raises(APIStatusError):
        rewards(config, server.url, r"so \boxed{3}", r"so \boxed{4}")


def test_without_the_deviation_the_papers_log_softmax_of_rewards_has_the_advantages_of_the_rewards(
    config: DictConfig,
) -> None:
    rewards = torch.tensor([[0.59], [0.4], [0.0], [1.0]])
    by_deviation = config.algorithm.norm_adv_by_std_in_grpo
    plain, papers = (
        compute_grpo_outcome_advantage(
            scores, torch.ones(4, 1), np.array(["one"] * 4), norm_adv_by_std_in_grpo=by_deviation
        )[0]
        for scores in (rewards, rewards - rewards.logsumexp(dim=0))
    )
    assert torch.allclose(plain, papers, atol=1e-6) and torch.allclose(plain, rewards - rewards.mean())


@pytest.mark.parametrize(
    ("override", "fix"),
    [
        ("reward.reward_model.enable=False", "set reward.reward_model.enable=True"),
        ("reward.reward_model.enable_resource_pool=False", "set reward.reward_model.enable_resource_pool=True"),
        ("reward.reward_model.model_path=null", "set reward.reward_model.model_path"),
        ("reward.custom_reward_function.path=null", "set reward.custom_reward_function.path"),
        ("reward.reward_kwargs.judge.scale=stars", "scale must be one of score, yes_no, not 'stars'"),
        ("reward.reward_manager.name=majority_vote", "set reward.reward_model.enable=False"),
    ],
)
def test_what_keeps_the_judge_from_being_asked_is_said_before_anything_starts(override: str, fix: str) -> None:
    _, _, problems = compose_recipe("mmupt_tiny", ["method=self_judge", override])
    assert any(fix in problem for problem in problems)
