"""Rewards equal those of their authors' published code, given 200 synthetic groups.

`authors_rewards.jsonl` has one group per line: answers (null: none), mean token entropies, judgements and embeddings
that were drawn at random, and under the name of a reward the numbers that the authors' code gives:

- self_judge: github.com/OPPO-Mente-Lab/LLM-Self-Judge at 8126f58, `VerifierRewardManager`, after its log-softmax
- scrl: github.com/Jasper-Yan/SCRL at 06535a1, `determine_pseudo_labels` and `reward_func` in the mode `binary`
- evol_rl: github.com/YujunZhou/EVOL-RL at 19896e0, `SemanticTTRLRewardManager._compute_novelty_rewards`; null for a
  group without a single most frequent answer, for which ours departs

Responses had the form `<think>...</think> ... \\boxed{answer}`, without the box where there is no answer.
"""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from verl_ext.rewards.group_reward import REWARDS, VotedGroup
from verl_ext.rewards.reward_settings import RewardSettings
from verl_ext.votes import vote

GROUPS = [json.loads(line) for line in Path(__file__).with_name("authors_rewards.jsonl").read_text().splitlines()]


def ours(name: str, group: dict[str, Any]) -> list[float]:
    voted = VotedGroup(
        [],
        group["answers"],
        vote(group["answers"]),
        log_probs=[[-entropy] for entropy in group["entropies"]],
        embeddings=np.array(group["embeddings"], dtype=np.float64),
        judgements=group["judgements"],
    )
    return list(REWARDS[name](RewardSettings()).rewards(voted))


def centred(rewards: list[float]) -> list[float]:
    """GRPO's advantages without division by the deviation."""
    return [reward - fmean(rewards) for reward in rewards]


def test_the_file_has_two_hundred_groups_that_cover_all_cases_of_each_rule() -> None:
    assert len(GROUPS) == 200
    assert {reward for group in GROUPS for reward in group["scrl"]} == {-1, 0, 1}
    assert sum(group["evol_rl"] is not None for group in GROUPS) > 150
    assert sum(None in group["answers"] for group in GROUPS) > 40


def test_scrl_rewards_equal_those_of_the_authors_code() -> None:
    assert [ours("scrl", group) for group in GROUPS] == [group["scrl"] for group in GROUPS]


def test_evol_rl_rewards_equal_those_of_the_authors_code_in_groups_with_a_majority() -> None:
    for group in GROUPS:
        if group["evol_rl"] is not None:
            assert ours("evol_rl", group) == pytest.approx(group["evol_rl"], abs=1e-5)


def test_self_judge_advantages_equal_those_of_the_authors_code() -> None:
    for group in GROUPS:
        # With more responses without an answer, the authors' code rewards them as if they agreed on one.
        if group["answers"].count(None) <= 0.4 * len(group["answers"]):
            assert centred(ours("self_judge", group)) == pytest.approx(centred(group["self_judge"]), abs=1e-5)
