"""Scores the responses of a reward request: rewards voting groups and grades validation responses. Pure."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verl_ext.answers import correct, extract_answer
from verl_ext.rewards.group_request import GroupRequest, ResponseScore
from verl_ext.rewards.group_reward import GroupReward, VotedGroup
from verl_ext.rewards.reward_settings import RewardSettings
from verl_ext.votes import vote
from verl_ext.votes.vote_record import VoteRecord


def score_group(
    responses: Sequence[str],
    request: GroupRequest,
    reward: GroupReward,
    embeddings: NDArray[np.float64] | None = None,
    judgements: Sequence[float] | None = None,
) -> list[ResponseScore]:
    """Let the decoded responses of a group vote, and reward them.

    If all other responses of the group have failed, the remaining one gets the reward 0.0. `embeddings` and
    `judgements` are the fields of `VotedGroup`. Each `extra_info` holds the `answer` of its response (None without an
    answer) and the `VoteRecord` of the group.
    """
    start = time.perf_counter()
    settings = reward.settings
    answers = [extract_answer(response, settings.extraction) for response in responses]
    result = vote(answers, settings.vote_options, settings.comparison, request.choices, responses)
    group = VotedGroup(
        responses,
        answers,
        result,
        request.choices,
        log_probs=request.log_probs,
        embeddings=embeddings,
        judgements=judgements,
        questions=request.questions,
        ground_truth=request.ground_truth,
    )
    # veRL's GRPO uses the reward of a lone survivor as its advantage.
    rewards = reward.rewards(group) if len(responses) > 1 else [0.0] * len(responses)
    record = VoteRecord(result, time.perf_counter() - start).to_extra_info()
    return [
        ResponseScore(value, {"answer": answer, **record}, response)
        for response, answer, value in zip(responses, answers, rewards, strict=True)
    ]


def grade_response(
    response: str, request: GroupRequest, settings: RewardSettings, verdict: float | Mapping[str, Any] | None = None
) -> ResponseScore:
    """Grade a validation response: 1 if its answer equals the ground truth, 0 if not or if either is missing.

    The `verdict` of a reward function takes precedence: a score, or as in veRL a mapping with `score` and other values.
    `extra_info` holds these other values, `acc` (the reward unless the function returns `acc`), `answered`, and
    `answer`, which is "" without an answer because veRL's statistics expect columns of one type.
    """
    answer = extract_answer(response, settings.extraction)
    if verdict is None:
        verdict = correct(answer, request.ground_truth, settings.comparison, request.choices)
    others = dict(verdict) if isinstance(verdict, Mapping) else {"score": verdict}
    reward = float(others.pop("score"))
    # veRL adds its own column with this name.
    others.pop("reward", None)
    return ResponseScore(
        reward, {"acc": reward, **others, "answered": float(answer is not None), "answer": answer or ""}
    )
