"""Every branch of We-Math's official rule and scores on handmade rows."""

from dataclasses import replace

import pytest
from benchmark_questions import question

from mmupt.benchmarks import Question, wemath


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
        ("5 cm", False),  # only a letter counts; the authors do not compare texts
        ("Both", False),  # a word is not a letter
        ("b", False),  # lower case does not count
        ("", False),
        (None, False),
    ],
)
def test_wemath_accepts_only_the_letter(answer: str | None, right: bool) -> None:
    assert wemath.is_correct(answer, question("B", ("12 cm", "5 cm"), "multi_choice")) == right


@pytest.mark.parametrize(
    ("steps", "whole", "strict", "loose"),
    [
        ((True, True), True, "CM", "CM"),
        ((True, False), True, "RM", "CM"),  # some steps are right: rote memorisation only if strict
        ((False, False), True, "RM", "RM"),
        ((True, True), False, "IG", "IG"),
        ((True, False), False, "IK", "IK"),
        ((False, False, False), False, "IK", "IK"),
        ((False, True, False), True, "RM", "CM"),
    ],
)
def test_wemath_classifies_a_problem_strictly_and_loosely(
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


def test_wemath_scores_match_a_calculation_by_hand() -> None:
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


def test_wemath_leaves_out_incomplete_problems() -> None:
    whole, of_whole = problem("a", True, True, True)
    cut, of_cut = problem("b", False, True, True)
    found = wemath.scores(of_whole | of_cut, [*whole, cut[0], cut[2]])
    assert found == wemath.scores(of_whole, whole) and found["S1"] == 1.0
    assert wemath.scores(of_cut, [cut[0], cut[2]]) == {}


def test_wemath_names_an_unknown_step() -> None:
    asked, verdicts = problem("a", True, True, True)
    odd = replace(asked[0], id="odd", metadata={**asked[0].metadata, "key": "2steps_3"})
    with pytest.raises(ValueError, match="We-Math problem a has the steps 2steps_3, which are unknown"):
        wemath.scores({**verdicts, "odd": True}, [*asked, odd])
