"""What `reward.reward_kwargs` tells the reward managers of this plugin, read and checked. Pure: imports no veRL.

The blocks `answers`, `vote`, `judge` and `solver`; what is left out has the default of the field that it names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf

from verl_ext.answers import Comparison, Extraction
from verl_ext.rewards.judgements import JudgeSettings
from verl_ext.rewards.solver_prompt import SolverSettings
from verl_ext.unknown_keys import read_block, refuse_unknown_keys
from verl_ext.votes import VoteOptions


@dataclass(frozen=True)
class RewardSettings:
    """extraction: where a response has its answer. comparison: when answers are equal. vote_options: how they vote.
    judge: how the judge is asked, for rewards that need judgements. solver: how the policy answers the questions that
    it writes, for rewards that need them.
    """

    extraction: Extraction = "boxed"
    comparison: Comparison = Comparison()
    vote_options: VoteOptions = VoteOptions()
    judge: JudgeSettings = JudgeSettings()
    solver: SolverSettings = SolverSettings()


def read_settings(reward_kwargs: DictConfig | None) -> RewardSettings:
    """Read the blocks.

    Raises:
        ValueError: keys that do not exist, naming the nearest ones, and values that are not allowed, in all blocks.
    """
    content: Any = {} if reward_kwargs is None else OmegaConf.to_container(reward_kwargs, resolve=True)
    defaults = RewardSettings()
    extraction, comparison = defaults.extraction, defaults.comparison
    vote_options, judge, solver = defaults.vote_options, defaults.judge, defaults.solver
    problems = []
    try:
        refuse_unknown_keys(content, ("answers", "vote", "judge", "solver"))
    except ValueError as error:
        problems.append(f"reward.reward_kwargs: {error}")
    try:
        extraction, comparison = _read_answers(content.get("answers") or {})
    except ValueError as error:
        problems.append(f"reward.reward_kwargs.answers: {error}")
    try:
        vote_options = VoteOptions.from_mapping(content.get("vote") or {})
    except ValueError as error:
        problems.append(f"reward.reward_kwargs.vote: {error}")
    try:
        judge = read_block(content.get("judge") or {}, [field.name for field in fields(JudgeSettings)], JudgeSettings)
    except ValueError as error:
        problems.append(f"reward.reward_kwargs.judge: {error}")
    try:
        solver = read_block(
            content.get("solver") or {}, [field.name for field in fields(SolverSettings)], SolverSettings
        )
    except ValueError as error:
        problems.append(f"reward.reward_kwargs.solver: {error}")
    if problems:
        raise ValueError("; ".join(problems))
    return RewardSettings(extraction, comparison, vote_options, judge, solver)


def _read_answers(block: Mapping[str, Any]) -> tuple[Extraction, Comparison]:
    def make(extraction: Extraction = RewardSettings.extraction, **limits: Any) -> tuple[Extraction, Comparison]:
        if extraction not in get_args(Extraction):
            raise ValueError(f"extraction must be one of {', '.join(get_args(Extraction))}, not {extraction!r}")
        return extraction, Comparison(**limits)

    return read_block(block, ["extraction", *(field.name for field in fields(Comparison))], make)
