"""Builds the prompts that ask the policy to answer a question it wrote, and whether the question is valid. Pure.

`verl_ext.rollout.question_solver` sends the requests.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verl_ext.control_text import escaped
from verl_ext.datasets.message_parts import images_in
from verl_ext.datasets.row_format import with_instruction
from verl_ext.unknown_keys import is_number, is_whole, refuse_values


@dataclass(frozen=True)
class SolverSettings:
    """The block `reward.reward_kwargs.solver`.

    samples: answers per question; 10 in VisPlay.
    instruction: appended to the question after a space, if not None.
    validity_prompt: asks whether a question is valid, with the placeholder {question}; the last line of the reply must
        begin or end with yes or no. None to skip this.
    validity_bonus: extra reward of a question that the reply calls valid; 0.1 in RISE.

    Raises:
        ValueError: values that are not allowed, naming each field.
    """

    samples: int = 10
    instruction: str | None = None
    validity_prompt: str | None = None
    validity_bonus: float = 0.1

    def __post_init__(self) -> None:
        allowed = {
            "samples": (is_whole(self.samples, 2), "a whole number of at least 2"),
            "instruction": (self.instruction is None or isinstance(self.instruction, str), "null or a text"),
            "validity_prompt": (
                self.validity_prompt is None
                or (isinstance(self.validity_prompt, str) and "{question}" in self.validity_prompt),
                "null or a text with {question}",
            ),
            "validity_bonus": (is_number(self.validity_bonus, 0), "a number of at least 0"),
        }
        refuse_values(self, allowed)


def solver_messages(
    messages: Sequence[Mapping[str, Any]], question: str, instruction: str | None, control_tokens: Iterable[str]
) -> list[dict[str, Any]]:
    """Build the prompt that asks a question about the images of `messages`, the prompt that requested the question.

    Keeps all messages but the user's. The question is untrusted, so control text in it is escaped.
    """
    images = list(map(dict, images_in(messages)))
    text = with_instruction(escaped(question, control_tokens), instruction)
    content = [*images, {"type": "text", "text": text}] if images else text
    others = [dict(message) for message in messages if message["role"] != "user"]
    return [*others, {"role": "user", "content": content}]
