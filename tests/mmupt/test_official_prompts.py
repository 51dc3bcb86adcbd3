"""Official prompts, and the answers extracted from responses to them; comments give the reasons."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmupt.benchmarks import BENCHMARKS, Question, mathverse, mathvision, mathvista, read_questions, wemath
from mmupt.benchmarks.official_prompt import with_images
from mmupt.datasets import data_set
from mmupt.evaluation.response_files import Response, write_responses
from mmupt.evaluation.score_files import score_file
from mmupt.evaluation.verdicts import judge_file, verdicts_of

FIVE = ("10", "20", "30", "40", "50")


def question(
    text: str = "<image>Find x.",
    choices: tuple[str, ...] | None = None,
    kind: str = "free_form",
    source: str = "mathvision",
    **metadata: Any,
) -> Question:
    return Question("q", source, text, kind, choices, "truth", metadata)


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], dict[str, Question]]:
    """Prepares a stand-in of a data set with the hub's columns and returns its questions."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "mmupt_data"))
    from hub_shaped import write

    def prepare(name: str, split: str) -> dict[str, Question]:
        data_set(name).prepare(tmp_path / name, str(write(tmp_path / "source", name, rows=5)))
        return read_questions(tmp_path / name / f"{split}.parquet")

    return prepare


@pytest.mark.parametrize(
    ("name", "split", "row", "expected"),
    [
        # The column `query` unchanged.
        ("mathvista", "testmini", 0, "<image>Hint: Please answer the question.\nQuestion: How does 0 compare?"),
        # The column `query_cot`, also where the column `question` is empty.
        ("mathverse", "testmini", 4, "<image>Please first conduct reasoning."),
        (
            "mathvision",
            "test",
            0,  # without options
            '<image>Please solve the problem step by step and put your answer in one "\\boxed{}". If it is a multiple '
            'choice question, only one letter is allowed in the "\\boxed{}".\n'
            "Which of the shapes in <image1> and <image2> is number 0?\n",
        ),
        (
            "mathvision",
            "test",
            1,  # options A to E are in the drawing and not listed
            '<image>Please solve the problem step by step and put your answer in one "\\boxed{}". If it is a multiple '
            'choice question, only one letter is allowed in the "\\boxed{}".\n'
            "Which of the shapes in <image1> and <image2> is number 1?\n",
        ),
        (
            "wemath",
            "testmini",
            0,
            "<image>Now, we require you to solve a multiple-choice math question. Please briefly describe your thought "
            "process and provide the final answer(option).\n"
            "Question: What is the area of circle 0 (  )\n"
            "Option: A. 12 cm;B. 5 cm^2;C. v = 3; w = 2;D. No correct answer\n"
            "Regarding the format, please answer following the template below, and be sure to include two <> symbols:\n"
            "<Thought process>: <<your thought process>> <Answer>: <<your option>>",
        ),
    ],
)
def test_the_official_prompt_is_the_image_and_the_authors_wording(
    prepared: Callable[[str, str], dict[str, Question]], name: str, split: str, row: int, expected: str
) -> None:
    prompt = BENCHMARKS[name].official_prompt
    assert prompt is not None and prompt(list(prepared(name, split).values())[row]) == expected


def test_mathvision_lists_options_with_text() -> None:
    asked = question("<image>Find x.\nChoices:\n(A) 10\n(B) 20\n(C) 30\n(D) 40\n(E) 50", FIVE, "multi_choice")
    listed = "Find x.\n(A) 10\n(B) 20\n(C) 30\n(D) 40\n(E) 50\n"
    assert mathvision.official_prompt(asked) == f"<image>{mathvision.PROMPT}{listed}"


def test_wemath_keeps_braces_in_a_question() -> None:
    text, option = "Is {options} \\frac{1}{2}?", "A. {question};B. no"
    asked = question(f"<image>{text}", ("{question}", "no"), "multi_choice", option=option)
    assert "Question: Is {options} \\frac{1}{2}?\nOption: A. {question};B. no\n" in wemath.official_prompt(asked)


@pytest.mark.parametrize("name", ["mathvista", "mathvision", "mathverse", "wemath"])
def test_a_prompt_does_not_depend_on_the_ground_truth(
    prepared: Callable[[str, str], dict[str, Question]], name: str
) -> None:
    prompt = BENCHMARKS[name].official_prompt
    assert prompt is not None
    for one in prepared(name, "test" if name == "mathvision" else "testmini").values():
        assert prompt(one) == prompt(replace(one, truth="something else"))
        assert prompt(one).count("<image>") == one.text.count("<image>") == 1


def test_an_official_text_with_placeholders_needs_as_many_as_the_question() -> None:
    two = question("<image><image>which ?")
    assert with_images("which ?", two) == "<image><image>which ?"
    assert with_images("<image> or <image> ?", two) == "<image> or <image> ?"
    with pytest.raises(ValueError, match="q: 1 <image> in the official prompt, 2 in the question"):
        with_images("<image> ?", two)


CITIES = ("hong kong", "osaka", "shanghai", "tokyo")


@pytest.mark.parametrize(
    ("response", "kind", "answer"),
    [
        (r"(A) is near, but \boxed{D}. The answer is C.", "text", "D"),  # a box wins
        ("tokyo", "text", "tokyo"),  # nothing but an option
        ("The answer is D (tokyo).", "text", "D"),  # a letter in front of its text
        ("The answer is (b), not (C).", "text", "B"),  # the first letter in brackets of the statement
        ("The answer is tokyo.", "text", "D"),  # a text
        ("The answer is (Z).", "text", None),  # no option of that letter
        ("(Z)", "text", "Z"),  # the same at the start: the rule compares it as text
        ("The correct option letter is C. 14.2 degrees.", "text", "C"),  # a letter in front of its text
        ("A) 5.8", "text", "A"),
        ("B - osaka", "text", "B"),
        ('the answer to the question is "osaka."', "text", "B"),
        ("The largest city of that country is Tokyo.", "text", "D"),  # names a single option
        ("hong kong is near, shanghai is far. Therefore it is shanghai.", "text", "C"),  # the conclusion
        ("所以答案为C", "text", "C"),
        ("The answer is A.\n\nQuestion: and now ?\nThe answer is B.", "text", "B"),  # the last words
        ("It cannot be determined which one.", "text", "Cannot be determined"),
        ("Of (A) and (C), I take (C) here", "text", "C"),  # the last letter in brackets
        ("(A) is wrong.\n\n**D**", "text", "D"),  # the letter at the end, as the hint asks
        ("It lies in JAPAN", "text", None),  # the last capital of a word is not an option
        ("I cannot say.", "text", "I cannot say."),  # a refusal in one sentence
        ("I cannot say. Please show me the map.", "text", "I cannot say."),  # requests are ignored
        ("C is the right answer, as D is inland.", "text", "C"),
        ('The map is small. I will choose "B" for now, but it is a guess.', "text", "B"),
        ("The city is called X2B.", "text", None),  # the end of a name is not an option
        ("A: osaka", "text", "B"),  # short for "Answer"
        ("(F) osaka", "text", "B"),  # no option of that letter
        ("(F) osaka\n(G) tokyo", "text", "F"),  # a list does not name an option
        (
            "It is not among the choices, as it lies in Korea.",
            "text",
            "It is not among the choices, as it lies in Korea.",
        ),
        ("", "text", None),
        ("7", "integer", "7"),
        ("Adding 3 and 4 gives 1,007 apples.", "integer", "1007"),  # the number at the end
        ("The answer is 12. I am sure, as 3 is too small.", "integer", "12"),  # the statement before what follows
        ("There are none.", "integer", None),
        ("The missing number is 14.\n\n1. 2 + 2 = 4\n2. 3 + 3 = 6\n\nI hope this helps.", "integer", "14"),  # as asked
        ("It is 14. It follows 1, 2 and 3.", "integer", "14"),  # the first sentence of a short response
        ("2 of 4\n3 more\n1 less\n14 in all", "integer", "14"),  # the last line of what is worked out
        ("There are 12 snowmen. The first 11 are old.", "integer", "12"),
        ("There are two bars with values above 4.", "integer", "2"),  # a word; "4" is in the question
        ("It costs **15,000 EUR** in 2019.", "integer", "15000"),  # the bold text
        ("I do not have enough information about the 5 students.", "integer", None),
        ("Therefore, I am unable to tell how far the two are apart.", "integer", None),
        ("Here is the answer:\n\nThere are 4 in 3 groups. There are 12 in each.", "integer", "3"),
        ("So the final value is 14, as x = 3.", "integer", "14"),
        ("The count of each option is:\n3\n7\nSo the missing number is 14.", "integer", "14"),  # a list states nothing
        ("So 5 + 5 = 10.\nThe missing number is 14.", "integer", "14"),  # the last that is about the question
        ("The missing number is 4, as x = 4.", "integer", "4"),  # a number of the question counts if it is computed
        ("There are 14 left: 8 cubes and 6 balls.", "integer", "14"),  # a number before its parts
        ("1.250", "float", "1.25"),  # a bare number, parsed like the authors'
        ("So it is -0.5 m", "float", "-0.5"),
        ("first [1, 2], then [3, 4].", "list", "[3, 4]"),  # the last list
        ("3 and 4", "list", None),
    ],
)
def test_mathvista_extracts_box_bare_answer_statement_or_end(response: str, kind: str, answer: str | None) -> None:
    choices = CITIES if kind == "text" else None
    asked = question(
        "<image>Which number is missing above 4 ?",
        choices,
        "multi_choice" if choices else "free_form",
        answer_type=kind,
    )
    assert mathvista.extract(response, asked) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"so \boxed{B}", "B"),
        (r"so \boxed{\text{(b)}}. It is not C", r"\text{(b)}"),  # a box
        (r"so \boxed{B}. It is not C.", "C"),  # a letter at the end wins over a box
        (r"so \boxed{1} or \boxed{2}", "2"),  # the last one
        (r"so \boxed{\frac{1}{2}}. As {x}", r"\frac{1}{2}}. As {x"),  # up to the last brace of the response
        (r"so \boxed{}", None),
        ("so it must be (C).", "C"),  # the letter at the end
        ("it is C.", "C"),
        ("C\nas 3 is odd", "C"),  # the letter in front
        ("(C) C\nas 3 is odd", "C"),
        ("(C) D\nas 3 is odd", "(C) D\nas 3 is odd"),  # two letters count as none: the answer is the whole response
        ("D\nor else it is (B).", "B"),  # of the letters at start and end, the first in the alphabet
        ("x is 7.5", "7.5"),  # the number after the last "is "
        ("The answer is 7 apples. They are red.", "7 apples"),  # a statement up to the end of its sentence
        ("the correct answer is: 2 \\pi", ": 2 \\pi"),
        ("seven", "seven"),  # the whole response
        ("x = 9", "x = 9"),
        ("", None),
    ],
)
def test_mathvision_extracts_like_its_authors(response: str, answer: str | None) -> None:
    assert mathvision.extract(response, question()) == answer


VERSE = "<image>Find x.\nChoices:\nA:30\nB:45\nC:60\nD:90"


@pytest.mark.parametrize(
    ("response", "kind", "answer"),
    [
        (r"(A) or \boxed{C}", "multi-choice", "C"),  # a box wins
        ("The correct answer is B: 45.", "multi-choice", "B"),
        ("The answer is 45.", "multi-choice", "B"),  # the option's text
        ("so I choose (D)", "multi-choice", "D"),
        ("Answer: D", "multi-choice", "D"),
        ("not given", "multi-choice", None),
        ("The answer is x + 1.", "free-form", "x + 1"),
        ("so x is about 22.3 m", "free-form", "22.3"),  # the value at the end
        ("not given", "free-form", None),
    ],
)
def test_mathverse_extracts_box_statement_or_end(response: str, kind: str, answer: str | None) -> None:
    assert mathverse.extract(response, question(VERSE, None, kind)) == answer


YES_NO = ("Yes", "No")


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("Yes, this is an odd function.", "A"),
        ("no.", "B"),
        ('the answer to the question is "Yes."', "A"),
        ("This is an odd function.", "A"),  # in the words of the question
        ("This is not an odd function.", "B"),
        ("Whales are mammals.", None),
        ("Is this an odd function?", None),  # a question states nothing
        ("This odd function cannot be seen.", "This odd function cannot be seen."),  # a refusal
        ("It is false that this is an odd function.", "B"),
        ("The odd function is this.", "A"),  # in another order
        ("This does not have what an odd function has.", "B"),  # lacks something other than information
        ("Based on the image, the one shown is an odd function, as it is symmetric.", "A"),
    ],
)
def test_a_yes_or_no_question_is_answered_in_prose(response: str, answer: str | None) -> None:
    asked = question("<image>Is this an odd function?", YES_NO, "multi_choice", "mathvista", answer_type="text")
    assert mathvista.extract(response, asked) == answer


QUANTITIES = ("12 cm", "14 cm", "20 cm")


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (
            "If it is long, the answer is (A). Otherwise it is (B). Without the figure we cannot answer the question.",
            "N/A",
        ),
        ("We know nothing. Therefore, the question cannot be answered.", "Cannot be answered"),
        ("There are no figures. The correct option is (D) cannot be determined.", "D"),  # an option of its own
        ("因此 BE 的长为14, 选项B是正确答案。", "B"),
        ("As it is long, this matches choice B - the middle one.", "B"),
        ("12 cm and 2 more. Therefore, it is 15.", "15"),  # what is concluded, though it is no option
        ("As the first is 12 cm, it is 14 cm.", "B"),  # not what the question says
    ],
)
def test_what_a_response_concludes_counts_before_what_it_mentions(response: str, answer: str) -> None:
    asked = question("<image>AB is 12 cm. How long?", QUANTITIES, "multi_choice", "mathvista", answer_type="text")
    assert mathvista.extract(response, asked) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("That leaves these:\n14", "14"),  # the last line
        ("We count.\n1) It is long.\n2) Therefore, the bar has a height of 14.", "14"),  # no marker of a list
        ("The ratio is 14:3.", "14:3"),  # no number
        ("The range is 3 to 14.", "3 to 14"),
        ("Answer: 14.\n\nQuestion: How many of 9?\n\nAnswer:", "14"),  # a statement that was cut says nothing
    ],
)
def test_a_number_is_found_where_a_response_concludes(response: str, answer: str) -> None:
    asked = question("<image>How many above 4?", None, "free_form", "mathvista", answer_type="integer")
    assert mathvista.extract(response, asked) == answer


def test_a_comparison_in_reverse_order_does_not_affirm() -> None:
    asked = question("<image>Is Blue greater than Red?", YES_NO, "multi_choice", "mathvista", answer_type="text")
    assert mathvista.extract("The graph shows that Blue is greater than Red.", asked) == "A"
    assert mathvista.extract("The graph shows that Red is greater than Blue.", asked) is None
    many = replace(asked, text="<image>Is the number of red cars that are left of the bus greater than that of trucks?")
    assert mathvista.extract("The number of red cars is greater than that of trucks.", many) == "A"
    assert mathvista.extract("The number of trucks is greater than that of red cars.", many) is None


def test_a_conditional_sentence_states_its_consequence() -> None:
    choices = ("plants decrease", "plants increase")
    asked = question("<image>What if owls decrease?", choices, "multi_choice", "mathvista", answer_type="text")
    assert mathvista.extract("If owls decrease, plants will increase.", asked) == "B"


def test_a_root_without_braces_names_the_option() -> None:
    asked = question("<image>Find x.", ("2", "2√{3}"), "multi_choice", "mathvista", answer_type="text")
    assert mathvista.extract("In this figure x is 2√3 long.", asked) == "B"


def test_a_derivation_that_ends_with_a_refusal_is_the_refusal() -> None:
    asked = question("<image>Find x.", ("2", "3"), "multi_choice", "mathvista", answer_type="text")
    long = "We look at x. It is half of y. Then y is large. None of the options fit."
    assert mathvista.extract(long, asked) == "None of the options fit."
    assert mathvista.extract("We know nothing. None of the options fit.", asked) == "N/A"


def test_a_prompt_repeated_after_the_response_is_ignored() -> None:
    asked = question("<image>How many?", None, "free_form", "mathvista", answer_type="integer")
    prompt = "Hint: Give the final value, e.g., 1, 2, 3, at the end.\nQuestion: How many? (Unit: cars)"
    assert mathvista.extract(f"The answer is 14.\n\n{prompt}", asked) == "14"


def test_an_s_before_a_price_means_a_dollar_sign() -> None:
    asked = question("<image>How much? (Unit: $)", None, "free_form", "mathvista", answer_type="integer")
    assert mathvista.extract("S10 + S4 = S14\n\nShe needs S14.", asked) == "14"


SEVERAL = "<image>Which two are negative? Choose 2 answers:\nChoices:\nA:x\nB:y\nC:-x\nD:-y"


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"so \boxed{C, D}", "C, D"),
        ("The answer is C and D. Done.", "C and D"),
        ("Both are below.\nC, D", "C, D"),  # the last line
    ],
)
def test_mathverse_extracts_all_letters_when_several_are_required(response: str, answer: str) -> None:
    assert mathverse.extract(response, question(SEVERAL, None, "multi-choice")) == answer


HOSTILE = (
    "answer is " * 20_000,
    "cannot " * 20_000,
    "(A" * 20_000,
    "so 1 " * 20_000,
    "1." * 20_000,
    "\n" * 60_000,
    "**" * 30_000,
    "A" * 60_000,
    " " * 60_000 + "A",
    "1,000" * 12_000,
    "answer " + " " * 60_000,
)


@pytest.mark.parametrize("response", HOSTILE)
def test_hostile_responses_are_read_fast(response: str) -> None:
    begin = time.perf_counter()
    for asked in (question(SEVERAL, FIVE, "multi-choice"), question(VERSE, CITIES, answer_type="text"), question()):
        for benchmark in (mathvista, mathverse):
            benchmark.extract(response, asked)
    assert time.perf_counter() - begin < 2.0


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<Thought process>: <<2 x 3>> <Answer>: <<B>>", "B"),
        ("<Answer>: <<B. 5 cm>>", "B"),  # the letter in front of its text
        ("Answer: A\nAnswer: C", "C"),  # the last one
        ("Answer: 5 cm", None),  # only letters count
        ("Answer: (B)", None),  # the authors strip no brackets either
        ("B", "B"),  # without the word, the first character of the response
        ("The option is B", None),
        (r"<Answer>: <<A>> \boxed{B}", "B"),  # a box wins
        ("", None),
    ],
)
def test_wemath_extracts_the_letter_after_the_last_answer(response: str, answer: str | None) -> None:
    assert wemath.extract(response, question(choices=FIVE, kind="multi_choice")) == answer


@given(st.text(max_size=60))
def test_extraction_accepts_any_response(response: str) -> None:
    choices = question(VERSE, FIVE, "multi-choice", answer_type="text")
    for asked in (choices, question(answer_type="float"), question(answer_type="list")):
        for benchmark in (mathvista, mathvision, mathverse, wemath):
            answer = benchmark.extract(response, asked)
            assert answer is None or answer.strip()


def test_the_official_extraction_is_the_benchmarks() -> None:
    response = Response("q", "greedy", 0, "<Answer>: <<B>>")
    asked = replace(question(choices=FIVE, kind="multi_choice", source="wemath"), truth="B")
    assert verdicts_of([response], {"q": asked}, "official")[0].right == {"official": True, "own": True}
    assert verdicts_of([response], {"q": asked}, "boxed")[0].right == {"official": False, "own": False}


def test_a_set_without_an_official_prompt_lists_the_extractions() -> None:
    asked = {"q": question(source="figures")}
    with pytest.raises(ValueError, match="figures has no official prompt: choose another extraction, boxed, answer_"):
        verdicts_of([Response("q", "greedy", 0, "6")], asked, "official")


def test_a_file_with_official_prompts_is_scored_officially_unless_overridden(
    prepared: Callable[[str, str], dict[str, Question]], tmp_path: Path
) -> None:
    questions = prepared("wemath", "testmini")
    file = tmp_path / "responses.jsonl"
    responses = [Response(id_, "greedy", 0, "<Answer>: <<B>>") for id_ in questions]
    data = {str(tmp_path / "wemath" / "testmini.parquet"): "sha"}
    write_responses(file, responses, {"data": data, "extraction": "official"})
    assert score_file(file)[0].accuracy["official"]["greedy"].value == 1.0
    assert {verdict.answer for verdict in judge_file(file, "boxed").verdicts} == {None}
