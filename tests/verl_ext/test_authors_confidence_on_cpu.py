"""Confidence rewards equal those of the authors' published code, given the logits of 200 synthetic groups.

`authors_confidence.jsonl` has one group per line: tenths of logits of each token of each response, the tokens that were
sampled, and under the name of a reward the numbers that `compute_certainty_reward` gives
(`verl/trainer/ppo/ttrl_utils.py` of github.com/PRIME-RL/TTRL at c46b671), with entropies and self-certainties by the
same repository's `entropy_from_logits` and `self_certainty_from_logits`. Theirs are called trajectory_level_entropy,
probability, token_level_entropy and self_certainty.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import verl.workers.engine  # noqa: F401  (must be imported before the engines that extend its classes)
from torch.nn.utils.rnn import pad_sequence
from verl.utils.torch_functional import entropy_from_logits

from verl_ext.confidence_engine import self_certainty
from verl_ext.confidence_trainer import confidence_rewards
from verl_ext.rewards.group_reward import REWARDS, VotedGroup
from verl_ext.rewards.reward_settings import RewardSettings
from verl_ext.votes import vote

GROUPS = [json.loads(line) for line in Path(__file__).with_name("authors_confidence.jsonl").read_text().splitlines()]


def logits(group: dict[str, Any]) -> list[torch.Tensor]:
    """Return the logits of each response, (tokens, vocabulary)."""
    return [torch.tensor(response, dtype=torch.float32) / 10 for response in group["tenths_of_logits"]]


def test_the_file_has_two_hundred_groups_with_different_rewards() -> None:
    assert len(GROUPS) == 200
    assert len({len(response) for group in GROUPS for response in group["tokens"]}) > 2
    for name in ("entropy", "probability", "token_entropy", "self_certainty"):
        assert sum(len(set(group[name])) > 1 for group in GROUPS) > 190


@pytest.mark.parametrize("name", ["entropy", "probability"])
def test_rewards_from_sampled_tokens_equal_those_of_the_authors_code(name: str) -> None:
    for group in GROUPS:
        log_probs = [
            response.log_softmax(dim=-1)[range(len(tokens)), tokens].tolist()
            for response, tokens in zip(logits(group), group["tokens"], strict=True)
        ]
        answers = ["1"] * len(log_probs)
        voted = VotedGroup([], answers, vote(answers), log_probs=log_probs)
        assert list(REWARDS[name](RewardSettings()).rewards(voted)) == pytest.approx(group[name], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", ["token_entropy", "self_certainty"])
def test_rewards_from_logits_equal_those_of_the_authors_code(name: str) -> None:
    for group in GROUPS:
        responses = logits(group)
        token_values = pad_sequence(
            [
                self_certainty(response, torch.ones(len(response)), rows=2)
                if name == "self_certainty"
                else -entropy_from_logits(response)
                for response in responses
            ],
            batch_first=True,
        )
        mask = pad_sequence([torch.ones(len(response), dtype=torch.long) for response in responses], batch_first=True)
        rewards = confidence_rewards(token_values, mask)
        assert rewards.sum(dim=-1).tolist() == pytest.approx(group[name], rel=1e-4, abs=1e-5)
        # At the last token, as in the authors' tensor.
        assert all(reward[length:].abs().sum() == 0 for reward, length in zip(rewards, mask.sum(dim=-1), strict=True))
