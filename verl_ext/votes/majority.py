"""The rule of MM-UPT (arXiv 2505.22453, section 3): the most frequent answer of a group is its pseudo-label.

A response is rewarded where its answer equals the pseudo-label. What the paper leaves open is a `VotePolicy`; whatever
it says, a response without an answer never votes and is never rewarded, and nobody is elected by a single vote.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from verl_ext.answers import Comparison, classify
from verl_ext.votes.vote_options import VotePolicy


@dataclass(frozen=True)
class Vote:
    """The outcome of one group of responses, which are numbered by their position in it.

    winner: the pseudo-label, the answer that stands for the elected class, or None where the group elects none; the
        first in the order of `classes` where tied classes are all elected.
    share: size of the largest class over the number of responses, or of answers by the policy; 0.0 if there is none.
    rewards: one a response, from 0.0 to 1.0.
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


def vote(
    answers: Sequence[str | None],
    policy: VotePolicy = VotePolicy(),
    comparison: Comparison = Comparison(),
    choices: Sequence[str] | None = None,
    responses: Sequence[str] = (),
) -> Vote:
    """Let the responses of one group vote. Their order is of no consequence.

    The largest class of equal answers is elected, unless it is smaller than the policy asks for; a tie is what the
    policy makes of it. Hard rewards are 1.0 for the members of elected classes. Soft rewards are shares of classes, to
    which ties do not matter: only a largest class that is too small makes all of them 0.0.

    Args:
        answers: one a response, None for a response without one.
        policy: who is elected and what it is worth.
        comparison: when answers are equal.
        choices: the options of the question, if it has some.
        responses: whatever tells groups of equal answers apart in the draw of the tie rule "seeded", as their texts do;
            without it, a tie between the same answers is always drawn alike.

    >>> vote(["10", "10", "7", None]).rewards
    (1.0, 1.0, 0.0, 0.0)
    """
    classes = classify(answers, comparison, choices)
    sizes = [len(members) for members in classes.members]
    answered = sum(sizes)
    voters = len(answers) if policy.count_no_answer else answered
    largest = [rank for rank, size in enumerate(sizes) if size == sizes[0]]
    share = sizes[0] / voters if sizes else 0.0
    elected: list[int] = []
    worth = [0.0] * len(sizes)
    if sizes and sizes[0] >= policy.min_votes and share >= policy.min_share:
        elected = _elect(largest, classes.answers, policy, responses)
        if policy.reward == "hard":
            worth = [float(rank in elected) for rank in range(len(sizes))]
        elif policy.reward == "soft" or share >= policy.soft_min_share:
            worth = [size / voters for size in sizes]
    rewards = [0.0] * len(answers)
    for members, reward in zip(classes.members, worth, strict=True):
        for response in members:
            rewards[response] = reward
    return Vote(
        winner=classes.answers[elected[0]] if elected else None,
        share=share,
        rewards=tuple(rewards),
        classes=classes.members,
        tied=len(largest) > 1,
        no_answer=len(answers) - answered,
    )


def _elect(largest: list[int], answers: Sequence[str], policy: VotePolicy, responses: Sequence[str]) -> list[int]:
    if len(largest) == 1 or policy.tie == "all":
        return largest
    if policy.tie == "none":
        return []
    # A text as seed is hashed alike in every process.
    drawn = random.Random(repr((policy.seed, [answers[rank] for rank in largest], sorted(responses))))
    return [drawn.choice(largest)]
