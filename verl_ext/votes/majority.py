"""The rule of MM-UPT (arXiv 2505.22453, section 3): the most frequent answer of a group is its pseudo-label.

A response is rewarded where its answer equals the pseudo-label. Where the paper is silent: a response without an answer
never votes, a tie elects nobody, and nobody is elected by a single vote.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from verl_ext.answers import canonical


@dataclass(frozen=True)
class Vote:
    """The outcome of one group of responses, which are numbered by their position in it.

    winner: the pseudo-label, as its key (`verl_ext.answers.canonical`), or None where the group elects none.
    share: size of the largest class over the number of responses, including those without an answer; 0.0 if all are.
    rewards: one a response, 1.0 or 0.0.
    classes: the responses that gave the same answer, the largest class first, classes of one size in the order of keys.
    tied: whether several classes are the largest.
    no_answer: number of responses without an answer.
    """

    winner: str | None
    share: float
    rewards: tuple[float, ...]
    classes: tuple[tuple[int, ...], ...]
    tied: bool
    no_answer: int

    @property
    def distinct(self) -> int:
        """Number of different answers in the group."""
        return len(self.classes)

    @property
    def informative(self) -> bool:
        """Whether rewards differ within the group: where they do not, every GRPO advantage is zero."""
        return len(set(self.rewards)) > 1


def vote(answers: Sequence[str | None]) -> Vote:
    """Let the responses of one group vote; `answers` holds one answer a response, None for a response without one.

    The largest class of equal answers wins: its members are rewarded 1.0 and all others 0.0. A tie for the largest
    class, or fewer than two answers in the group, elects nobody and rewards nobody. The order of responses is of no
    consequence.

    >>> vote(["10", "10", "7", None]).rewards
    (1.0, 1.0, 0.0, 0.0)
    """
    members: dict[str, list[int]] = defaultdict(list)
    for response, answer in enumerate(answers):
        if answer is not None:
            members[canonical(answer)].append(response)
    ranked = sorted(members.items(), key=lambda item: (-len(item[1]), item[0]))
    sizes = [len(responses) for _, responses in ranked]
    tied = len(sizes) > 1 and sizes[0] == sizes[1]
    elected = sum(sizes) >= 2 and not tied
    winners = set(ranked[0][1]) if elected else set()
    return Vote(
        winner=ranked[0][0] if elected else None,
        share=sizes[0] / len(answers) if sizes else 0.0,
        rewards=tuple(float(response in winners) for response in range(len(answers))),
        classes=tuple(tuple(responses) for _, responses in ranked),
        tied=tied,
        no_answer=len(answers) - sum(sizes),
    )
