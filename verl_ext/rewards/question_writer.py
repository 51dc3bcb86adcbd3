"""The reward `question_writer`: rewards diverse questions that the solver is unsure about. Pure.

VisPlay: He et al. 2025, "Self-Evolving Vision-Language Models from Images", arXiv 2511.15661, and R-Zero: Huang et al.
2025, "Self-Evolving Reasoning LLM from Zero Data", arXiv 2508.05004. Formula: `compute_score` in the authors'
`train_examples/reward_function/cot_val.py` (github.com/bruno686/VisPlay, 3aa895b), the same as in
`examples/reward_function/caller_penalty.py` (github.com/Chengsong-Huang/R-Zero, 5699329). Majority ratio:
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

# Clusters farther apart than this, in 1 - BLEU, are not merged.
LARGEST_DISTANCE = 0.5
# Maximum n-gram length of BLEU, in words.
LONGEST_NGRAM = 4
# Replaces a count of zero (`SmoothingFunction.method1` of nltk).
SMOOTHING = 0.1


@REWARDS.register
class QuestionWriterReward(GroupReward):
    """min(s, 1 - s) - c for a question, -1 - c for a response without one.

    s is the majority ratio of the solver's answers to the question, c the share of the group in the question's cluster
    of near-duplicates, from `cluster_shares`. If the solver is asked whether a question is valid and affirms it, the
    reward increases by `solver.validity_bonus`, as in RISE: Xu et al. 2026, arXiv 2605.20914, `compute_score` in
    `train_examples/reward_function/cot_val.py` (github.com/AMAP-ML/RISE, 7c7ce81).

    Differences from the authors' code:

    - Clusters are formed within a group, whose questions are about the same images. Theirs span a whole batch.
    - The solver is the policy itself, at its current weights. Theirs is the frozen solver of the previous round.
    - `question_in` finds the question in a response. Theirs must include an answer, which is not used.
    - Answers are equal by meaning, as in every vote of this project. Theirs are compared by mathruler, and all answers
      with "no " in them count as equal.
    - Of RISE, only the bonus is implemented. There, a response without a question gets -1 and is in no cluster, a
      judged question must also match the skill that it declares, and rare skills get a separate bonus.
    """

    name = "question_writer"
    bounds = None
    needs_questions = True

    def rewards(self, group: VotedGroup) -> Sequence[float]:
        """Return rewards from -2 to 0.5 - 1 / n for n responses, plus the bonus."""
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
    """Return the share of all texts that are in the cluster of each text.

    Clusters are merged while their average distance is below 0.5. The distance between two texts is 1 - BLEU. As in the
    authors' code, the later text is the reference for the earlier text, so the order of texts of different lengths may
    matter, and every empty text is its own cluster.

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
    # fcluster also merges at the threshold, the authors' AgglomerativeClustering only below it.
    threshold = math.nextafter(LARGEST_DISTANCE, 0.0)
    labels = fcluster(linkage(squareform(distances), "average"), threshold, "distance")
    sizes = Counter(labels)
    return [sizes[label] / len(texts) for label in labels]


def bleu(words: Sequence[str], reference: Sequence[str]) -> float:
    """Return the BLEU of a text against one reference, 0 to 1: nltk's `sentence_bleu` with smoothing method 1.

    Not symmetric. Two copies of a three-word text, which has no 4-gram, score 0.1 ** (1 / 4).
    """
    logarithms = []
    for n in range(1, LONGEST_NGRAM + 1):
        ngrams = _ngrams(words, n)
        common = (ngrams & _ngrams(reference, n)).total()
        if n == 1 and not common:
            return 0.0
        logarithms.append(math.log((common or SMOOTHING) / max(1, ngrams.total())))
    brevity = min(0.0, 1 - len(reference) / len(words))
    return math.exp(brevity + math.fsum(logarithms) / LONGEST_NGRAM)


def _ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))
