"""The reward `question_writer`: questions that the solver is unsure about, and that differ from each other. Pure.

VisPlay: He et al. 2025, "Self-Evolving Vision-Language Models from Images", arXiv 2511.15661, and R-Zero: Huang et al.
2025, "Self-Evolving Reasoning LLM from Zero Data", arXiv 2508.05004. Formula: `compute_score` in the authors'
`train_examples/reward_function/cot_val.py` (github.com/bruno686/VisPlay, 3aa895b), the same as in
`examples/reward_function/caller_penalty.py` (github.com/Chengsong-Huang/R-Zero, 5699329). Majority share:
`vllm_service_init/start_vllm_server.py` in both.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from verl_ext.answers import extract_answer
from verl_ext.rewards.group_request import WrittenQuestion
from verl_ext.rewards.group_reward import REWARDS, GroupReward, VotedGroup
from verl_ext.votes import vote

# Questions whose clusters are farther apart, in 1 - BLEU, are different ones.
LARGEST_DISTANCE = 0.5
# Up to as many words in a row are compared.
LONGEST_NGRAM = 4
# Stands for a count of zero (`SmoothingFunction.method1` of nltk).
SMOOTHING = 0.1


@REWARDS.register
class QuestionWriterReward(GroupReward):
    """min(s, 1 - s) - c for a question, -1 - c for a response without one.

    s is the majority ratio of the solver's answers to the question, c the share of the group in the question's cluster
    of near-duplicates, from `cluster_shares`. A question that the solver calls valid, if it was asked, has
    `solver.validity_bonus` more, as in RISE: Xu et al. 2026, arXiv 2605.20914, `compute_score` in
    `train_examples/reward_function/cot_val.py` (github.com/AMAP-ML/RISE, 7c7ce81).

    Departs from the authors in these points:

    - Clusters are those of a group, which is about the same images. Theirs are those of a whole batch.
    - The solver is the policy itself, at its current weights. Theirs is the frozen solver of the round before.
    - A question is what `question_in` finds in a response. Theirs must come with an answer, which is not used.
    - Answers are equal by meaning, as in every vote of this project. Theirs are compared by mathruler, and those with
      "no " in them are equal.
    - Of RISE, the bonus alone: there a response without a question has -1 and is in no cluster, a judged question must
      also be of the skill that it declares, and rare skills have a bonus of their own.
    """

    name = "question_writer"
    bounds = None
    needs_questions = True

    def rewards(self, group: VotedGroup) -> Sequence[float]:
        """From -2 to 0.5 - 1 / n for n responses, and the bonus."""
        assert group.questions is not None
        shares = cluster_shares([question.text or "" for question in group.questions])
        return [
            (-1.0 if question.text is None else self._uncertainty(question.solutions)) - share + self._bonus(question)
            for question, share in zip(group.questions, shares, strict=True)
        ]

    def _bonus(self, question: WrittenQuestion) -> float:
        return self.settings.solver.validity_bonus if question.is_valid else 0.0

    def _uncertainty(self, solutions: Sequence[str]) -> float:
        answers = [extract_answer(solution, self.settings.extraction) for solution in solutions]
        majority_ratio = vote(answers, comparison=self.settings.comparison).majority_ratio
        return min(majority_ratio, 1 - majority_ratio)


def cluster_shares(texts: Sequence[str]) -> list[float]:
    """For every text, the share of all texts that are in its cluster.

    Clusters are merged while their average distance is below 0.5; the distance of two texts is 1 - BLEU. As in the
    authors' code, the earlier text is compared to the later one, so that the order of texts of different lengths may
    matter, and an empty text has a cluster of its own.

    >>> cluster_shares(["what is the area of it ?", "how long is AB ?", "what is the area of it ?", ""])
    [0.5, 0.25, 0.5, 0.25]
    """
    if len(texts) < 2:
        return [1.0] * len(texts)
    words = [text.split() for text in texts]
    distances = np.zeros((len(texts), len(texts)))
    for later in range(len(texts)):
        for earlier in range(later):
            distances[earlier, later] = distances[later, earlier] = 1 - bleu(words[earlier], words[later])
    # fcluster merges at the threshold as well, the authors' AgglomerativeClustering only below.
    threshold = math.nextafter(LARGEST_DISTANCE, 0.0)
    labels = fcluster(linkage(squareform(distances), "average"), threshold, "distance")
    sizes = Counter(labels)
    return [sizes[label] / len(texts) for label in labels]


def bleu(words: Sequence[str], reference: Sequence[str]) -> float:
    """BLEU of a text against one reference, from 0 to 1: `sentence_bleu` of nltk, smoothed by its method 1.

    It is not symmetric, and 0.1 ** (1 / 4) for the same three words, which have no n-gram of four.
    """
    logarithms = []
    for n in range(1, LONGEST_NGRAM + 1):
        found, wanted = _ngrams(words, n), _ngrams(reference, n)
        common = (found & wanted).total()
        if n == 1 and not common:
            return 0.0
        logarithms.append(math.log((common or SMOOTHING) / max(1, found.total())))
    brevity = min(0.0, 1 - len(reference) / len(words))
    return math.exp(brevity + math.fsum(logarithms) / LONGEST_NGRAM)


def _ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))
