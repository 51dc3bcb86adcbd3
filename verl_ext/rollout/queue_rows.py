"""Puts all rows of a group into the transfer queue at once.

veRL's worker puts the row of each response separately, with four messages each. The rows of a group can wait for each
other, because nothing reads them before the group is finished.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transfer_queue as tq
from verl.experimental.agent_loop import AgentLoopOutput
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

# Field with the group's `VotedQuestion` as JSON in the row of its first response, "" in its other rows. No training
# pass reads it.
VOTED_QUESTION = "voted_question"


@dataclass(frozen=True)
class QueueRow:
    """One response in the transfer queue; the replay buffer sees only its `tag`."""

    key: str
    fields: dict[str, Any]
    tag: dict[str, Any]


def make_row(
    output: AgentLoopOutput,
    kwargs: dict[str, Any],
    complete: Callable[[torch.Tensor], tuple[torch.Tensor, Any]],
) -> QueueRow:
    """Make the same row as veRL's worker makes for a session with one output.

    Args:
        kwargs: fields of the prompt, including `uid`, `session_id` and `global_steps`.
        complete: maps the tokens of prompt and response, (tokens,), to their position ids, (4, tokens) for M-RoPE and
            (tokens,) otherwise, and to the features of the prompt, a dict or a `SharedFeatures`.
    """
    fields = output.as_dict() | kwargs
    fields.pop("multi_modal_data", None)
    fields["loss_mask"] = fields["response_mask"]
    fields["input_ids"] = torch.cat([fields["prompts"], fields["responses"]])
    fields["position_ids"], fields["multi_modal_inputs"] = complete(fields["input_ids"])
    prompt_length, response_length = len(fields["prompts"]), len(fields["responses"])
    tag = {
        "status": "success",
        "prompt_len": prompt_length,
        "response_len": response_length,
        "seq_len": prompt_length + response_length,
        "global_steps": kwargs["global_steps"],
        "min_global_steps": fields["extra_fields"].get("min_global_steps"),
        "max_global_steps": fields["extra_fields"].get("max_global_steps"),
    }
    return QueueRow(f"{kwargs['uid']}_{kwargs['session_id']}_0", fields, tag)


async def put(rows: list[QueueRow]) -> list[None]:
    """Put rows into the training partition, with one call per set of fields."""
    by_fields: dict[frozenset[str], list[QueueRow]] = {}
    for row in rows:
        # Responses without log-probabilities lack that field.
        by_fields.setdefault(frozenset(row.fields), []).append(row)
    for batch in by_fields.values():
        await tq.async_kv_batch_put(
            keys=[row.key for row in batch],
            fields=list_of_dict_to_tensordict([row.fields for row in batch]),
            tags=[row.tag for row in batch],
            partition_id="train",
        )
    return [None] * len(rows)
