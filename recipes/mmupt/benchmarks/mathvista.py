r"""MathVista testmini: 1,000 questions from 31 data sets, with options or a free answer.

The question is the benchmark's own, without its hint about the form of the answer. The official prompt is the column
`query`: hint, question and options.

`is_correct` is the rule of the authors' `evaluation/calculate_score.py`: it brings an answer into the form of the
ground truth and compares texts. The authors first let a model extract the answer, which also cleans it; by the rule
alone, `D.`, `5^\circ` and `x = 5` are wrong. `is_correct_cleaned` therefore cleans the answer by code; the score
without cleaning is reported too.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from string import ascii_uppercase
from typing import Any

from mmupt.benchmarks.benchmark import BENCHMARKS, Benchmark, JudgeSteps, Question, Rule
from mmupt.benchmarks.judge_prompts import end_of, judge_prompt
from mmupt.benchmarks.official_prompt import bare_question, is_number, with_images
from mmupt.benchmarks.prose_answers import number_in, option_in, refusal_in
from mmupt_data.hub import Content, HubDataset, HubSplit, Layout, Licence, as_text, image_bytes, with_choices
from verl_ext.answers import extract_answer, number_of

LETTER = re.compile(r"\(([a-zA-Z])\)")
LIST = re.compile(r"\[[^\[\]]*\]")
# Wrappers of a whole answer: \text{...}, \boxed{...} and \( ... \).
WRAPPED = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|boxed|fbox)\s*\{(.*)\}|\\[(\[](.*)\\[)\]]", re.DOTALL)
# "D", "(d)", "D.", "D) 5", "D: tokyo", "Option D"
DRESSED_LETTER = re.compile(
    r"(?:(?:the )?(?:option|choice)\s+)?\(?([A-Za-z])(?:[).:]+(?:\s.*)?)?", re.IGNORECASE | re.DOTALL
)
BRACE = re.compile("[{}]")
MARKDOWN = "$*` "
# A match starts at the first space of a run only; starting at each of them would take cubic time.
SIGNS = re.compile(r"(?:\^\s*|(?<!\s)\s+|)(?:\{\s*)?\\(?:circ|degree)\s*\}?|[°º$£€%]|\\[$%]")
FIELDS = ("language", "source", "category", "task", "context", "grade")


def read(row: Mapping[str, Any]) -> Content:
    """Read a row of `AI4Math/MathVista`; the answer to a question with options is the text of an option."""
    choices = tuple(map(as_text, row["choices"])) if row["choices"] else None
    return Content(
        with_choices(as_text(row["question"]), choices),
        (image_bytes(row["decoded_image"]),),
        as_text(row["answer"]),
        id=as_text(row["pid"]),
        question_type=as_text(row["question_type"]),
        choices=choices,
        metadata={name: row[name] for name in ("query", "unit", "precision", "answer_type", "metadata")},
    )


def is_correct(answer: str | None, question: Question) -> bool:
    """Whether the normalised answer equals the ground truth exactly."""
    return normalise(answer, question) == question.truth


def is_correct_cleaned(answer: str | None, question: Question) -> bool:
    """`is_correct` for the cleaned answer. The authors leave cleaning to the model that extracts the answer."""
    return is_correct(None if answer is None else cleaned(answer, question), question)


def cleaned(answer: str, question: Question) -> str:
    r"""Strip wrappers and units: `\text{D}` and `D. tokyo` become D, `x = 5`, `5^\circ` and `5\text{ cm}` become 5.

    The text of an option stays unchanged, as does anything other than a letter, a number or a list.
    """
    if question.choices and answer.strip() in question.choices:
        return answer.strip()
    text = _unwrapped(answer.strip().strip(MARKDOWN))
    if question.choices:
        letter = DRESSED_LETTER.fullmatch(text)
        return letter[1].upper() if letter and ord(letter[1].upper()) - ord("A") < len(question.choices) else text
    if question.metadata.get("answer_type") == "list":
        return f"[{', '.join(part.strip() for part in text[1:-1].split(','))}]" if LIST.fullmatch(text) else text
    number = re.sub(r"(?<=\d)(?:\{,\}|,|\\,|\\ | )(?=\d{3}(?!\d))", "", re.split(r"=|≈|\\approx", text)[-1])
    number = SIGNS.sub("", number).strip().rstrip(".")
    if is_number(number):
        return number
    value = number_of(number)
    return text if value is None else str(value)


def _unwrapped(text: str) -> str:
    """Remove all wrappers that enclose the whole text, in one pass, because there may be any number of them."""
    # The position of the closing brace by the position after its opening brace.
    closings: dict[int, int] = {}
    opened: list[int] = []
    closing = len(text)
    for brace in BRACE.finditer(text):
        if brace[0] == "{":
            opened.append(brace.end())
        elif opened:
            closings[opened.pop()] = brace.start()
        else:
            closing = min(closing, brace.start())
    begin, end = 0, len(text)
    while wrapped := WRAPPED.fullmatch(text, begin, end):
        inner_begin, inner_end = wrapped.span(wrapped.lastindex or 0)
        if wrapped.lastindex == 1:
            closing = closings.get(inner_begin, len(text))
        # The wrapper at the start ends before the end: \text{a} or \text{b}.
        if closing < inner_end:
            break
        begin, end = inner_begin, inner_end
        while begin < end and text[begin] in MARKDOWN:
            begin += 1
        while begin < end and text[end - 1] in MARKDOWN:
            end -= 1
    return text[begin:end]


def normalise(answer: str | None, question: Question) -> str | None:
    """Bring an answer into the form of the ground truth; None if that is impossible.

    With options, "(b)" and "B" become the text of that option. Anything else, a missing answer included, becomes the
    option with the nearest text. Numbers are rounded to the question's precision.
    """
    if question.question_type == "multi_choice":
        assert question.choices is not None
        text = "" if answer is None else answer.strip()
        if found := LETTER.search(text):
            text = found[1].upper()
        if len(text) == 1 and text in ascii_uppercase[: len(question.choices)]:
            return question.choices[ascii_uppercase.index(text)]
        return nearest(text, question.choices)
    if answer is None:
        return None
    # Outside the block below, which would treat a missing key as a wrong answer.
    kind = question.metadata["answer_type"]
    precision = question.metadata["precision"] if kind == "float" else None
    try:
        if kind == "integer":
            return str(int(float(answer)))
        if kind == "float":
            return str(round(float(answer), None if precision is None else int(precision)))
    except (ValueError, OverflowError):
        return None
    return answer


@lru_cache(maxsize=4096)
def nearest(text: str, choices: tuple[str, ...]) -> str:
    """The option at the smallest Levenshtein distance; the first of several."""
    return min(choices, key=lambda choice: levenshtein(text, choice))


def levenshtein(text: str, other: str) -> int:
    """The number of characters to insert, delete or replace to turn one text into the other.

    The bits of two integers mark where a column of the distance table rises and falls (Hyyrö 2003).
    """
    text, other = sorted((text, other), key=len, reverse=True)
    places = {character: bytearray(len(text) // 8 + 1) for character in other}
    for index, character in enumerate(text):
        if character in places:
            places[character][index >> 3] |= 1 << (index & 7)
    where = {character: int.from_bytes(bits, "little") for character, bits in places.items()}
    last = 1 << len(text) >> 1
    grows, falls, distance = (1 << len(text)) - 1, 0, len(text)
    for character in other:
        same = where[character]
        diagonal = ((same & grows) + grows ^ grows) | same | falls
        right, left = falls | ~(diagonal | grows), grows & diagonal
        distance += bool(right & last) - bool(left & last)
        right, left = right << 1 | 1, left << 1
        grows, falls = left | ~(diagonal | right), right & diagonal
    return distance


def official_prompt(question: Question) -> str:
    """The column `query`, after the image."""
    return with_images(str(question.metadata["query"]), question)


def plain(response: str, question: Question) -> str | None:
    """The answer of a response that needs no judge: its box, or the whole response if it is a bare answer."""
    text = response.strip()
    if (boxed := extract_answer(response)) or not text:
        return boxed
    if question.choices and text in question.choices:
        return text
    try:
        read = {"integer": int, "float": float}.get(str(question.metadata.get("answer_type")))
        return str(read(text)) if read and not question.choices else None
    except ValueError:
        return None


def extract(response: str, question: Question) -> str | None:
    """Return the plain answer; otherwise the option, list or number that a response states in prose, or its refusal.

    All but the plain answer is found by this project's rules, which replace the authors' judge. A refusal is returned
    too, because the authors' rule takes the option nearest to any text.
    """
    if answer := plain(response, question):
        return answer
    if question.choices:
        return option_in(response, question.choices, bare_question(question)) or refusal_in(response)
    if question.metadata.get("answer_type") == "list":
        lists = LIST.findall(response)
        return lists[-1] if lists else None
    return number_in(response, bare_question(question))


def ask_answer(response: str, question: Question) -> str:
    """Ask a judge for the answer in a response to the column `query`."""
    return judge_prompt("mathvista_answer", question=str(question.metadata["query"]), response=end_of(response))


def breakdowns(question: Question) -> dict[str, tuple[str, ...]]:
    """The breakdowns of the benchmark's leaderboard."""
    metadata = question.metadata["metadata"]
    return {
        "question_type": (question.question_type,),
        "answer_type": (question.metadata["answer_type"],),
        **{field: (str(metadata[field]),) for field in FIELDS if field in metadata},
        "skill": tuple(metadata.get("skills", ())),
    }


BENCHMARKS.register(
    Benchmark(
        data=HubDataset(
            name="mathvista",
            summary="MathVista testmini, 1,000 questions",
            path="AI4Math/MathVista",
            splits={"testmini": HubSplit("testmini", rows=1000)},
            layouts=(
                Layout(
                    {
                        "pid": "text",
                        "question": "text",
                        "decoded_image": "image",
                        "choices": "list",
                        "unit": "anything",
                        "precision": "anything",
                        "answer": "text",
                        "question_type": "text",
                        "answer_type": "text",
                        "metadata": "anything",
                        "query": "text",
                    },
                    read,
                ),
            ),
            licence=Licence(
                "CC BY-SA 4.0, a test set that may not be trained on", "https://github.com/lupantech/MathVista#-license"
            ),
        ),
        split="testmini",
        rules=(Rule("cleaned official", 4, is_correct_cleaned), Rule("official", 4, is_correct)),
        breakdowns=breakdowns,
        official_prompt=official_prompt,
        extract=extract,
        judge=JudgeSteps(plain, ask_answer),
    )
)
