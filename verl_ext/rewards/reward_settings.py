"""Reads and checks `reward.reward_kwargs` for the reward managers of this plugin. Pure: imports no veRL.

The blocks are `answers`, `vote`, `judge` and `solver`. Missing keys get the default of the field of the same name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf

from verl_ext.answers import AnswerRule, Comparison, Extraction
from verl_ext.rewards.judgements import JudgeSettings
from verl_ext.rewards.solver_prompt import SolverSettings
from verl_ext.unknown_keys import read_block, refuse_unknown_keys
from verl_ext.votes import VoteOptions


@dataclass(frozen=True)
class RewardSettings:
    """Settings of a reward.

    Attributes:
        extraction: where the answer is in a response.
        comparison: when two answers are equal.
        vote_options: rules of the vote.
        judge: for rewards that need judgements.
        solver: for rewards that need questions, how the policy answers the questions that it writes.
    """

    extraction: Extraction = "boxed"
    comparison: Comparison = Comparison()
    vote_options: VoteOptions = VoteOptions()
    judge: JudgeSettings = JudgeSettings()
    solver: SolverSettings = SolverSettings()


def read_settings(reward_kwargs: DictConfig | None) -> RewardSettings:
    """Read all blocks.

    Raises:
        ValueError: unknown keys, with the nearest known key, and invalid values; lists the problems of all blocks.
    """
    content: Any = {} if reward_kwargs is None else OmegaConf.to_container(reward_kwargs, resolve=True)
    settings: dict[str, Any] = {}
    problems = []
    # Options of veRL's reward manager `dapo`: configs often contain them with the penalty turned off.
    content.pop("max_resp_len", None)
    if (content.pop("overlong_buffer_cfg", None) or {}).get("enable"):
        key = "reward.reward_kwargs.overlong_buffer_cfg.enable"
        problems.append(f"{key}=True is a penalty of veRL's reward manager dapo, which no vote has: set {key}=False")
    try:
        refuse_unknown_keys(content, _READERS)
    except ValueError as error:
        problems.append(f"reward.reward_kwargs: {error}")
    for name, read in _READERS.items():
        try:
            settings |= read(content.get(name) or {})
        except ValueError as error:
            problems.append(f"reward.reward_kwargs.{name}: {error}")
    if problems:
        raise ValueError("; ".join(problems))
    return RewardSettings(**settings)


def _answers(extraction: Extraction = RewardSettings.extraction, rule: AnswerRule = Comparison.rule) -> dict[str, Any]:
    if extraction not in get_args(Extraction):
        raise ValueError(f"extraction must be one of {', '.join(get_args(Extraction))}, not {extraction!r}")
    return {"extraction": extraction, "comparison": Comparison(rule)}


# Block -> function that reads it into fields of `RewardSettings`.
_READERS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "answers": lambda block: read_block(block, _answers),
    "vote": lambda block: {"vote_options": read_block(block, VoteOptions)},
    "judge": lambda block: {"judge": read_block(block, JudgeSettings)},
    "solver": lambda block: {"solver": read_block(block, SolverSettings)},
}
