"""Every branch of We-Math's official rule and its scores, on rows made by hand."""

from dataclasses import replace

import pytest
from benchmark_questions import question

from mmupt.benchmarks import (
    Question,
    wemath,
)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("B", True),
        ("(B)", True),
        ("B. 5 cm", True),
        (r"\text{B}", True),
        (r"\text{(B)}", True),
        ("<B>", True),  # the template of the benchmark's prompt
        ("A", False),
        ("5 cm", False),  # only a letter counts: the authors look for no text
        ("Both", False),  # a word is no letter
        ("b", False),  # nor is a small one
        ("", False),
        (None, False),
    ],
)
def test_wemath_takes_the_letter_alone(answer: str | None, right: bool) -> None:
    assert wemath.is_correct(answer, question("B", ("12 cm", "5 cm"), "multi_choice")) == right


@pytest.mark.parametrize(
    ("steps", "whole", "strict", "loose"),
    [
        ((True, True), True, "CM", "CM"),
        ((True, False), True, "RM", "CM"),  # some steps are right: rote only strictly
        ((False, False), True, "RM", "RM"),
        ((True, True), False, "IG", "IG"),
        ((True, False), False, "IK", "IK"),
        ((False, False, False), False, "IK", "IK"),
        ((False, True, False), True, "RM", "CM"),
    ],
)
def test_a_problem_of_wemath_is_of_one_kind_strictly_and_loosely(
    steps: tuple[bool, ...], whole: bool, strict: str, loose: str
) -> None:
    assert wemath.mastery_of(steps, whole, strict=True) == strict
    assert wemath.mastery_of(steps, whole, strict=False) == loose


def problem(name: str, *right: bool) -> tuple[list[Question], dict[str, bool]]:
    count = len(right) - 1
    keys = [f"{count}steps_{step}" for step in [*range(1, count + 1), "multi"]]
    asked = [
        Question(f"{name}@{key}", "wemath", "", "multi_choice", None, "A", {"ID": name, "key": key}) for key in keys
    ]
    return asked, {one.id: verdict for one, verdict in zip(asked, right, strict=True)}


def test_the_scores_of_wemath_by_hand() -> None:
    # Strict: CM, RM, IG, IK; loose: CM, CM, IG, IK.
    problems = [
        problem("a", True, True, True),
        problem("b", True, False, True),
        problem("c", True, True, True, False),
        problem("d", False, True, True, False),
    ]
    asked = [one for questions, _ in problems for one in questions]
    verdicts = {id_: verdict for _, of_problem in problems for id_, verdict in of_problem.items()}
    found = wemath.scores(verdicts, asked)
    assert (found["S1"], found["S2"], found["S3"]) == (8 / 10, 1.0, 0.0)
    assert [found[f"strict {kind}"] for kind in ("IK", "IG", "CM", "RM")] == [0.25] * 4
    assert (found["strict score"], found["strict RM rate"]) == (0.25 + 0.125, 0.5)
    assert (found["loose score"], found["loose RM rate"]) == (0.5 + 0.125, 0.0)


def test_a_problem_of_wemath_without_one_of_its_steps_is_left_out() -> None:
    whole, of_whole = problem("a", True, True, True)
    cut, of_cut = problem("b", False, True, True)
    found = wemath.scores(of_whole | of_cut, [*whole, cut[0], cut[2]])
    assert found == wemath.scores(of_whole, whole) and found["S1"] == 1.0
    assert wemath.scores(of_cut, [cut[0], cut[2]]) == {}


def test_a_step_of_wemath_that_is_none_of_two_or_three_is_named() -> None:
    asked, verdicts = problem("a", True, True, True)
    odd = replace(asked[0], id="odd", metadata={**asked[0].metadata, "key": "2steps_3"})
    with pytest.raises(ValueError, match="We-Math problem a has the steps 2steps_3, which are unknown"):
        wemath.scores({**verdicts, "odd": True}, [*asked, odd])
