"""The voting rule of MM-UPT (arXiv 2505.22453, section 3): a group's most frequent answer is its pseudo-label.

A response is rewarded if its answer equals the pseudo-label. `VoteOptions` set what the paper leaves open. Whatever the
options, a response without an answer never votes and is never rewarded, and a single vote elects no answer.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from verl_ext.answers import Comparison, classify
from verl_ext.votes.vote_options import VoteOptions


@dataclass(frozen=True)
class Vote:
    """The outcome of one group's vote. Responses are numbered by their position in the group.

    pseudo_label: the representative answer of the elected class; the first in the order of `classes` if all tied
        classes are elected; None if none is elected.
    majority_ratio: size of the largest class divided by the number of responses, or by the number of answers if
        `VoteOptions.count_no_answer` is off; 0.0 without answers.
    rewards: one per response, from 0.0 to 1.0.
    classes: positions of responses with equal answers, largest class first, classes of equal size ordered by key.
    tied: whether several classes are the largest.
    no_answer: number of responses without an answer.
    """

    pseudo_label: str | None
    majority_ratio: float
    rewards: tuple[float, ...]
    classes: tuple[tuple[int, ...], ...]
    tied: bool
    no_answer: int

    @property
    def distinct(self) -> int:
        """Number of distinct answers in the group."""
        return len(self.classes)


def vote(
    answers: Sequence[str | None],
    options: VoteOptions = VoteOptions(),
    comparison: Comparison = Comparison(),
    choices: Sequence[str] | None = None,
    responses: Sequence[str] = (),
) -> Vote:
    """Hold the vote of one group. The order of the responses does not matter.

    The largest class of equal answers is elected unless it is below a quorum; `options` set quorums and break ties.
    Hard rewards are 1.0 for members of elected classes. Soft rewards are each class's share, even in a tie; all are 0.0
    if the largest class is below a quorum.

    Args:
        answers: one per response, None for a response without an answer.
        options: tie rule, quorums and kind of reward.
        choices: the texts of the options of a multiple-choice question.
        responses: texts that seed the draw of the tie rule "seeded". Without them, ties between the same answers always
            have the same outcome.

    >>> vote(["10", "10", "7", None]).rewards
    (1.0, 1.0, 0.0, 0.0)
    """
    classes = classify(answers, comparison, choices)
    sizes = [len(members) for members in classes.members]
    answered = sum(sizes)
    voters = len(answers) if options.count_no_answer else answered
    largest = [rank for rank, size in enumerate(sizes) if size == sizes[0]]
    majority_ratio = sizes[0] / voters if sizes else 0.0
    elected: list[int] = []
    class_rewards = [0.0] * len(sizes)
    if sizes and sizes[0] >= options.min_votes and majority_ratio >= options.min_share:
        elected = _elect(largest, classes.answers, options, responses)
        if options.reward == "hard":
            class_rewards = [float(rank in elected) for rank in range(len(sizes))]
        elif options.reward == "soft" or majority_ratio >= options.soft_min_share:
            class_rewards = [size / voters for size in sizes]
    rewards = [0.0] * len(answers)
    for members, reward in zip(classes.members, class_rewards, strict=True):
        for response in members:
            rewards[response] = reward
    return Vote(
        pseudo_label=classes.answers[elected[0]] if elected else None,
        majority_ratio=majority_ratio,
        rewards=tuple(rewards),
        classes=classes.members,
        tied=len(largest) > 1,
        no_answer=len(answers) - answered,
    )


def _elect(largest: list[int], answers: Sequence[str], options: VoteOptions, responses: Sequence[str]) -> list[int]:
    if len(largest) == 1 or options.tie == "all":
        return largest
    if options.tie == "none":
        return []
    # Strings seed the generator independently of PYTHONHASHSEED.
    drawn = random.Random(repr((options.seed, [answers[rank] for rank in largest], sorted(responses))))
    return [drawn.choice(largest)]
