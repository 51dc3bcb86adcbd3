"""The reward of a policy that writes questions: hand-computed values, the authors' code, and properties.

`authors_question_writer.jsonl` has one synthetic group per line: its questions ("" for none), how many of the `answers`
to each agree, the others being without an answer, and what `compute_score` of github.com/bruno686/VisPlay at 3aa895b
(`train_examples/reward_function/cot_val.py`) gives, with nltk 3.10.4 and scikit-learn 1.9.1. These counts stood for its
solver.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_ext.rewards.group_request import WrittenQuestion
from verl_ext.rewards.group_reward import REWARDS, VotedGroup
from verl_ext.rewards.question_writer import bleu, cluster_shares
from verl_ext.rewards.reward_settings import RewardSettings
from verl_ext.rewards.solver_prompt import SolverSettings, solver_messages
from verl_ext.votes import vote

GROUPS = [
    json.loads(line) for line in Path(__file__).with_name("authors_question_writer.jsonl").read_text().splitlines()
]
AREA, SIDE = "what is the area of the circle ?", "how long is AB ?"


def rewards(questions: Sequence[WrittenQuestion], solver: SolverSettings = SolverSettings()) -> list[float]:
    group = VotedGroup([""] * len(questions), [None] * len(questions), vote([None]), questions=questions)
    return list(REWARDS["question_writer"](RewardSettings(solver=solver)).rewards(group))


def written(text: str | None, *answers: str) -> WrittenQuestion:
    return WrittenQuestion(text, [rf"so \boxed{{{answer}}}" for answer in answers])


def test_the_reward_is_the_solvers_uncertainty_minus_the_cluster_share() -> None:
    result = rewards(
        [
            written(AREA, "1", "1", "1", "2"),
            written(AREA, "1", "2", "3", "4"),
            written(SIDE, "1/2", "0.5", "3", "4"),
            WrittenQuestion(None, []),
        ]
    )
    assert result == [0.25 - 2 / 4, 0.25 - 2 / 4, 0.5 - 1 / 4, -1 - 1 / 4]


def test_solutions_without_an_answer_count_in_the_total_but_do_not_vote() -> None:
    half = WrittenQuestion(AREA, [r"\boxed{1}", "it is so", r"\boxed{1}", "hm"])
    assert rewards([half, WrittenQuestion(SIDE, ["hm"] * 4)]) == [0.5 - 1 / 2, 0.0 - 1 / 2]


@pytest.mark.parametrize(
    ("verdicts", "bonus", "expected"),
    [
        # min(s, 1 - s) - c + 0.1 v of RISE, with s = c = 1/2.
        ((True, False), 0.1, [0.1, 0.0]),
        ((True, False), 0.5, [0.5, 0.0]),
        # The solver was not asked.
        ((None, None), 0.1, [0.0, 0.0]),
    ],
)
def test_a_question_that_the_solver_calls_valid_gets_a_bonus(
    verdicts: tuple[bool | None, ...], bonus: float, expected: list[float]
) -> None:
    unsure = written(AREA, "1", "2"), written(SIDE, "1", "2")
    questions = [replace(question, is_valid=verdict) for question, verdict in zip(unsure, verdicts, strict=True)]
    assert rewards(questions, SolverSettings(validity_bonus=bonus)) == pytest.approx(expected)


# Of five words one differs: 4/5, 3/4, 2/3 and 1/2 of the n-grams are common.
ONE_OF_FIVE_DIFFERS = (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25


@pytest.mark.parametrize(
    ("words", "reference", "expected"),
    [
        ("abcde", "abcdf", ONE_OF_FIVE_DIFFERS),
        ("abcde", "abcd", ONE_OF_FIVE_DIFFERS),
        # A text that is shorter than the reference.
        ("abcd", "abcde", math.exp(1 - 5 / 4)),
        # Three words have no n-gram of four, whose count is smoothed to 0.1 of 1.
        ("abc", "abc", 0.1**0.25),
        ("a", "b", 0.0),
        ("", "b", 0.0),
        ("b", "", 0.0),
    ],
)
def test_bleu_equals_that_of_nltk(words: str, reference: str, expected: float) -> None:
    assert bleu(list(words), list(reference)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("texts", "shares"),
    [
        # BLEU of 0.56 and of 0.18.
        (["a b c", "a b c", "a", "a"], [0.5, 0.5, 0.25, 0.25]),
        ([AREA], [1.0]),
        ([], []),
    ],
)
def test_equal_texts_share_a_cluster_unless_they_have_a_single_word(texts: list[str], shares: list[float]) -> None:
    assert cluster_shares(texts) == shares


def test_rewards_equal_those_of_the_authors_code() -> None:
    assert len(GROUPS) == 200 and sum("" in group["questions"] for group in GROUPS) > 50
    assert len({reward for group in GROUPS for reward in group["question_writer"]}) > 50
    for group in GROUPS:
        result = rewards(
            [
                WrittenQuestion(
                    text or None, ([r"\boxed{7}"] * count + ["hm"] * (group["answers"] - count)) * bool(text)
                )
                for text, count in zip(group["questions"], group["agreeing"], strict=True)
            ]
        )
        assert result == pytest.approx(group["question_writer"], abs=1e-6)


TEXTS = st.lists(st.text("abc ", max_size=12), min_size=1, max_size=8)


@given(TEXTS)
def test_shares_describe_a_partition(texts: list[str]) -> None:
    shares = cluster_shares(texts)
    # A cluster of m of n texts has m shares of m / n.
    for share in shares:
        assert shares.count(share) % round(share * len(texts)) == 0
    assert all(share == pytest.approx(1 / len(texts)) for share, text in zip(shares, texts, strict=True) if not text)


@given(st.lists(st.tuples(st.text("abc ", max_size=12), st.lists(st.sampled_from("123"), min_size=2)), min_size=1))
def test_rewards_are_bounded(questions: list[tuple[str, list[str]]]) -> None:
    result = rewards([written(text or None, *answers) for text, answers in questions])
    assert all(-2 <= reward <= 0.5 - 1 / len(questions) for reward in result)
    assert all((reward < -1) == (not text) for reward, (text, _) in zip(result, questions, strict=True))


@given(st.data())
def test_the_order_of_copies_and_unrelated_questions_does_not_matter(data: st.DataObject) -> None:
    different = ["what is the area ?", "how long are both", "find this angle now .", "x", ""]
    texts = data.draw(st.lists(st.sampled_from(different), min_size=1, max_size=10))
    order = data.draw(st.permutations(range(len(texts))))
    shares, permuted = cluster_shares(texts), cluster_shares([texts[index] for index in order])
    assert permuted == [shares[index] for index in order]


@given(st.lists(st.sampled_from("ab"), min_size=4, max_size=10))
def test_another_copy_never_raises_the_reward_of_a_question(texts: list[str]) -> None:
    long = {"a": AREA, "b": SIDE + " now"}
    sizes = [cluster_shares([long[text] for text in texts] + [AREA] * more)[-1] for more in range(1, 5)]
    assert all(before <= after for before, after in pairwise(sizes))


def test_the_solver_sees_the_images_and_the_question_instead_of_the_request() -> None:
    image = {"type": "image", "image": "pixels", "max_pixels": 9}
    request = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [image, {"type": "text", "text": "ask a question"}]},
    ]
    question = "is <|im_end|> or <image> here ?"
    *before, message = solver_messages(request, question, "box it", ["<|im_end|>"])
    assert before == request[:1]
    assert message["content"] == [image, {"type": "text", "text": "is < |im_end|> or < image> here ? box it"}]
    # The images of the request stay when those of the question are sent.
    assert message["content"][0] is not image
    assert solver_messages([{"role": "user", "content": "ask"}], "1 + 1 ?", None, []) == [
        {"role": "user", "content": "1 + 1 ?"}
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("samples", 1),
        ("samples", 2.0),
        ("samples", True),
        ("instruction", 3),
        ("validity_prompt", "is it valid ?"),
        ("validity_prompt", ["{question}"]),
        ("validity_bonus", -0.1),
    ],
)
def test_invalid_solver_settings_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        SolverSettings(**{field: value})  # type: ignore[arg-type]
