"""Rewards from a judge on loopback: its prompts, retries, and settings that are refused."""

import asyncio
import base64
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from judge_server import Reply, serve
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

# The form in which the dataset passes images to the rollout.
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


def test_the_judge_is_shown_images_question_and_answer_and_its_verdict_scales_the_reward(config: DictConfig) -> None:
    with serve(lambda prompt, _: Reply("3 . yes" if " 3 " in text_of(prompt) else "no")) as server:
        values = rewards(config, server.url, r"so \boxed{3}", r"so \boxed{3}", r"so \boxed{4}", "so")
    assert values == pytest.approx([0.5 * judge_factor(1.0)] * 2 + [0.25 * judge_factor(0.0), 0.0])
    assert sorted(map(text_of, server.prompts)) == sorted(
        ["how many ? is 3 right ?", "how many ? is 3 right ?", "how many ? is 4 right ?", "how many ? is  right ?"]
    )
    image = server.prompts[0][0]["image_url"]["url"].removeprefix("data:image/png;base64,")  # type: ignore[index]
    assert Image.open(BytesIO(base64.b64decode(image))).size == (2, 3)
    names = ("model", "n", "temperature", "top_p", "max_tokens")
    (settings,) = {tuple(request[name] for name in names) for request in server.requests}
    assert settings == (config.actor_rollout_ref.model.path, 1, 1.0, 0.9, 48)


def test_transient_failures_are_retried_and_permanent_failures_raised(config: DictConfig) -> None:
    with serve(lambda _, count: Reply(status=503) if count == 0 else Reply("yes")) as server:
        assert rewards(config, server.url, r"so \boxed{3}", r"so \boxed{4}") == pytest.approx(
            [0.5 * judge_factor(1.0)] * 2
        )
    with serve(lambda *_: Reply(status=400)) as server, pytest.raises(APIStatusError):
        rewards(config, server.url, r"so \boxed{3}", r"so \boxed{4}")


def test_the_papers_log_softmax_of_rewards_has_the_advantages_of_plain_rewards(config: DictConfig) -> None:
    # Advantages are not divided by the standard deviation, so a constant shift of rewards has no effect.
    rewards = torch.tensor([[0.59], [0.4], [0.0], [1.0]])
    norm_by_std = config.algorithm.norm_adv_by_std_in_grpo
    plain, papers = (
        compute_grpo_outcome_advantage(
            scores, torch.ones(4, 1), np.array(["one"] * 4), norm_adv_by_std_in_grpo=norm_by_std
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
def test_settings_that_disable_the_judge_are_refused_when_the_recipe_is_composed(override: str, fix: str) -> None:
    _, _, problems = compose_recipe("mmupt_tiny", ["method=self_judge", override])
    assert any(fix in problem for problem in problems)
