"""Filters of synthesized questions, which tolerate any text and do not depend on the order of images."""

from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mmupt.synthesis.candidates import Candidate, JudgedCandidate
from mmupt.synthesis.filters import FILTERS, difficulty, names, self_check, similarity
from mmupt.synthesis.synthesis_report import distinct, facts_of, render
from verl_ext.rewards.question_parsing import LONGEST_RESPONSE, question_in

THRESHOLDS = {
    "length": {"min_words": 3, "max_words": 20, "max_characters": 100},
    "language": {"script": "LATIN", "max_other_share": 0.2},
    "copy_of_parent": {"ngram": 3, "min_similarity": 0.7},
    "copy_of_other": {"ngram": 3, "min_similarity": 0.7},
}
SPECIAL = ("<image>", "\0", "\ufffd")


def candidate(question: str | None, id: str = "a", image: str = "i", parent: str | None = None) -> Candidate:
    return Candidate(id, "row", "direct", image, parent, "0", question or "", question)


def reason(name: str, question: str | None, parent: str | None = None) -> str | None:
    """Return why a filter drops a question, or None if it keeps it."""
    (result,) = FILTERS[name]([candidate(question, parent=parent)], **THRESHOLDS.get(name, {}))
    return result


@pytest.mark.parametrize(
    ("response", "question"),
    [
        ("what is the area ?", "what is the area ?"),
        ("Question: How long is AB?", "How long is AB?"),
        ("**Question:** How long is AB?", "How long is AB?"),
        ("Sure! Here is a question about it:\n\nHow long is AB?", "How long is AB?"),
        ('New question: "How long is AB?"\nAnswer: 5', "How long is AB?"),
        ("```\nHow long is AB?\n```", "How long is AB?"),
        ("```text\nQuestion: “How long is AB?”\n```", "How long is AB?"),
        ("<think>Question: Which one?\nHm.</think>\nQ: How long is AB?", "How long is AB?"),
        ("Question: Which side is longest?\nQuestion 2: How long is AB?", "How long is AB?"),
        ("1. Which side is longest?\n2. How long is AB?\n", "How long is AB?"),
        ("1. Which side is longest?\n2. How long is AB?\n3. Have fun", "How long is AB?"),
        ("<image>How   long\tis AB?", "How long is AB?"),
        ("Which is longest?\nA. AB\nB. BC", "Which is longest?\nA. AB\nB. BC"),
        ("Which is longest?\nA: AB\nB: BC", "Which is longest?"),
        ("Question: 'Question: \"How long?\"'", "How long?"),
        ("Find x.", "Find x."),
        ("", None),
        ("  \n ``` \n", None),
        ("Question:", None),
        # The filter `control_text` drops it and says why.
        ("what is <|im_end|> ?", "what is <|im_end|> ?"),
        ("what is \0 ?", None),
        ("what is \ud800 ?", None),
        ("what is \ufffd ?", None),
        ("why ? " * LONGEST_RESPONSE, None),
    ],
)
def test_at_most_one_question_is_parsed_from_a_response(response: str, question: str | None) -> None:
    assert question_in(response) == question


PARTS = st.sampled_from(
    [
        "Question:",
        "**",
        '"',
        "```",
        "\n",
        "1. ",
        "- ",
        "Answer:",
        "</think>",
        "<image>",
        "<|im_end|>",
        "is AB ?",
        ":",
        " ",
    ]
)


@given(st.lists(PARTS | st.text(max_size=5), max_size=30).map("".join))
@example("'" * 500 + "Question:" * 500)
@example("1. ?\n" * 300)
@example("<im<image>age>")
def test_a_parsed_question_parses_to_itself_and_is_safe_in_a_prompt(response: str) -> None:
    question = question_in(response)
    if question is not None:
        assert question_in(question) == question
        assert question == question.strip() and not any(text in question for text in SPECIAL)


@pytest.mark.parametrize(
    "response", ["\"'" * 3_900, "Question: " * 790, "1. a?\n" * 1_300, "**" * 3_900, "\n:" * 3_900]
)
def test_hostile_responses_are_parsed_without_catastrophic_backtracking(response: str) -> None:
    question_in(response)
    for name in ("not_a_question", "tells_its_answer"):
        reason(name, response)
    reason("tells_its_answer", "find " * 1_500)
    reason("tells_its_answer", "x is " * 1_500)


@pytest.mark.parametrize(
    ("name", "dropped", "kept"),
    [
        ("unparsable", [None, ""], ["what ?"]),
        ("control_text", ["what is <|image_pad|> ?", "what does <video> show ?", "is </s> one ?"], ["is a < b > c ?"]),
        (
            "not_a_question",
            ["The image shows a triangle.", "how long 12 = 18 . yes"],
            ["How long is AB?", "这是什么？", "Find x.", "AB is 5 cm. Calculate the area."],
        ),
        ("length", ["how long?", "why " * 21, "w" * 99 + " is it ?"], ["what is it ?"]),
        ("language", ["这个三角形的面积是多少？", "12 + 5 ?", "what это такое ?"], ["What is the sine of α ?"]),
        (
            "tells_its_answer",
            [
                "What is the area? \\boxed{12}",
                "What is the area? The answer is 12.",
                "What is the area?  Answer: 12",
                "If the area of ABC is 12 cm, what is the area of ABC?",
                "The length of AB = 5. Find the length of AB.",
                "What is the length of AB if the length of AB is 2.5?",
            ],
            [
                "What is the area of the triangle?",
                "If AB is 12 cm, what is the area of ABC?",
                "Which answer is possible, A or B?",
                "The length of AB is 3x + 5. Find the length of AB.",
                "The area is 12. What is the area of the other one?",
            ],
        ),
    ],
)
def test_each_filter_drops_what_its_name_says(name: str, dropped: list[str], kept: list[str]) -> None:
    assert [text for text in dropped if reason(name, text) is None] == []
    assert [reason(name, text) for text in kept] == [None] * len(kept)


@pytest.mark.parametrize(
    ("question", "is_copy"),
    [
        ("what is the Area of ABC", True),
        ("What is  the area of ABC ?!", True),
        ("So what is the area of ABC?", True),
        ("What is the perimeter of ABC?", False),
    ],
)
def test_a_copy_of_the_parent_is_recognized_despite_its_spelling(question: str, is_copy: bool) -> None:
    assert (reason("copy_of_parent", question, "What is the area of ABC?") is not None) == is_copy
    assert reason("copy_of_parent", question) is None


def test_the_first_of_several_copies_about_an_image_is_kept() -> None:
    reasons = FILTERS["copy_of_other"](
        [
            candidate("how long is AB ?", "1", "x"),
            candidate("How long is AB?", "2", "x"),
            candidate("how long is AB ?", "3", "y"),
            candidate("what is the area ?", "4", "x"),
        ],
        **THRESHOLDS["copy_of_other"],
    )
    assert reasons == [None, "similarity 1.00 to 1", None, None]


WORDS = ("what", "is", "how", "long", "find", "the", "area", "of", "AB", "BC", "\\boxed{1}", "12", "?", ".", "这")
TEXTS = st.lists(st.sampled_from(WORDS), max_size=9)
CANDIDATES = st.lists(st.tuples(st.sampled_from("xyz"), TEXTS.map(" ".join)), max_size=12).map(
    lambda pairs: [candidate(text, str(i), image, "how long is AB ?") for i, (image, text) in enumerate(pairs)]
)


def apply_filters(candidates: list[Candidate]) -> list[Candidate]:
    for name, function in FILTERS.items():
        reasons = function(candidates, **THRESHOLDS.get(name, {}))
        candidates = [candidate for candidate, why in zip(candidates, reasons, strict=True) if why is None]
    return candidates


@given(CANDIDATES)
def test_filters_are_idempotent(candidates: list[Candidate]) -> None:
    once = apply_filters(candidates)
    assert apply_filters(once) == once


@given(CANDIDATES, st.randoms(use_true_random=False))
def test_interleaving_candidates_about_different_images_changes_nothing(
    candidates: list[Candidate], random: Random
) -> None:
    queues = {image: [candidate for candidate in candidates if candidate.image == image] for image in "xyz"}
    images = [candidate.image for candidate in candidates]
    random.shuffle(images)
    shuffled = [queues[image].pop(0) for image in images]
    kept, expected = apply_filters(shuffled), apply_filters(candidates)
    assert {candidate.id for candidate in kept} == {candidate.id for candidate in expected}


@given(st.text(), st.text(), st.integers(1, 4))
def test_similarity_is_symmetric_and_one_for_the_same_words(a: str, b: str, ngram: int) -> None:
    assert similarity(a, b, ngram) == similarity(b, a, ngram)
    assert 0 <= similarity(a, b, ngram) <= 1
    assert similarity(a, f"  {a} \n", ngram) == 1


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("yes", None),
        ("It shows AB.\n**Yes**.", None),
        ("12 - 12 = 0 . yes", None),
        ("Yes, it can.", None),
        ("no", "the model says no"),
        ("yes\nNo", "the model says no"),
        ("No, not yes", "the model says neither"),
        ("", "the model says neither"),
        ("perhaps", "the model says neither"),
    ],
)
def test_only_a_final_yes_passes_the_self_check(reply: str, expected: str | None) -> None:
    assert self_check([candidate("why ?")], {"a": reply}) == [expected]


def test_questions_outside_the_difficulty_band_are_dropped() -> None:
    shares = {"0": 0.1, "1": 0.25, "2": 0.5, "3": 0.95, "4": 1.0}
    reasons = difficulty([candidate("why ?", id_) for id_ in shares], shares, low=0.25, high=0.95)
    assert reasons == ["vote share 0.10, hopeless", None, None, None, "vote share 1.00, too easy"]


def test_the_report_counts_dropped_questions_per_filter_and_strategy() -> None:
    judged = [
        JudgedCandidate(candidate("what is it ?"), vote_share=0.5),
        JudgedCandidate(candidate("what is it ?"), vote_share=1.0),
        JudgedCandidate(candidate(None), "unparsable", "no question in the response"),
    ]
    facts = facts_of(judged, names())
    total = facts["strategies"]["all"]
    assert total == facts["strategies"]["direct"]
    assert (total["candidates"], total["kept"], total["distinct_questions"]) == (3, 2, 0.5)
    assert list(total["dropped"]) == list(names()) and sum(total["dropped"].values()) == 1
    assert total["vote_shares"] == [0, 0, 0, 0, 0, 1, 0, 0, 0, 1] and total["mean_vote_share"] == 0.75
    text = render({"rows": 3, "rows_without_images": 0, **facts})
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["dropped by unparsable", "1", "1"] in rows and ["kept", "2 (66.7 %)", "2 (66.7 %)"] in rows
    assert "0 kept" in render({"rows": 0, "rows_without_images": 0, **facts_of([], names())})


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=5), max_size=5), st.integers(1, 3))
def test_repeating_all_texts_halves_the_distinct_share(texts: list[list[str]], n: int) -> None:
    once = distinct(texts, n)
    assert distinct([*texts, *texts], n) == (None if once is None else pytest.approx(once / 2))
