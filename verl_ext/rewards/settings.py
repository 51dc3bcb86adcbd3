"""What `reward.reward_kwargs` tells the reward managers of this plugin, read and checked. Pure: imports no veRL.

Two blocks, `answers` and `vote`; what is left out has the default of the field that it names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf

from verl_ext.answers import Comparison, Extraction
from verl_ext.keys import refuse_unknown_keys
from verl_ext.votes import VotePolicy


@dataclass(frozen=True)
class RewardSettings:
    """extraction: where a response has its answer. comparison: when answers are equal. policy: how they vote."""

    extraction: Extraction = "boxed"
    comparison: Comparison = Comparison()
    policy: VotePolicy = VotePolicy()


def read_settings(reward_kwargs: DictConfig | None) -> RewardSettings:
    """Read the two blocks.

    Raises:
        ValueError: a key that does not exist, naming the nearest one, or a value that is not allowed.
    """
    content: Any = {} if reward_kwargs is None else OmegaConf.to_container(reward_kwargs, resolve=True)
    where = "reward.reward_kwargs"
    try:
        refuse_unknown_keys(content, ("answers", "vote"))
        where = "reward.reward_kwargs.answers"
        extraction, comparison = _read_answers(content.get("answers") or {})
        where = "reward.reward_kwargs.vote"
        return RewardSettings(extraction, comparison, VotePolicy.from_mapping(content.get("vote") or {}))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _read_answers(block: Mapping[str, Any]) -> tuple[Extraction, Comparison]:
    refuse_unknown_keys(block, ["extraction", *(field.name for field in fields(Comparison))])
    extraction = block.get("extraction", RewardSettings.extraction)
    if extraction not in get_args(Extraction):
        raise ValueError(f"extraction must be one of {', '.join(get_args(Extraction))}, not {extraction!r}")
    return extraction, Comparison(**{name: value for name, value in block.items() if name != "extraction"})
