r"""Answers in prose: what a response without a box says, by rules that stand in for a judge model.

A statement ("the answer is ...", "option C") counts before the letter that opens or ends the response, that before the
sentence that concludes ("Therefore, ..."), and that before the first sentence that names an option or a number. Where a
response goes on to questions of its own, its last words count, as they do for a judge.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from string import ascii_uppercase

from recipes.mmupt.benchmarks.judged import end_of

# As many statements are looked at, the last ones, and as many characters after each.
STATEMENTS = 10
STATED = 500
# A sentence answers a question if this share of its words are the question's.
ECHO = 0.6

_PLAIN_SIGNS = str.maketrans("\uff08\uff09\uff1a\uff0c\uff0e\u2212", "():,.-")
_NEXT_EXAMPLE = re.compile(r"\n\s*(?:Hint|Question|Image|Example)\s*:")
_SENTENCES = re.compile(r"(?<=[.!?])\s+|[。\uff01\uff1f\n]+")
_CONCLUSION = re.compile(
    r"\b(?:therefore|thus|hence|so|consequently|in conclusion|in summary|final|finally|overall)\b|因此|所以|[故∴]",
    re.IGNORECASE,
)
_STATEMENT = re.compile(
    r"\b(?:answer|option|choice)(?:\s+to\s+(?:the|this|your)\s+\w+)?(?:\s+letter)?"
    r"(?:\s*:|\s+(?:is|would\s+be|should\s+be|must\s+be|will\s+be)\b\s*:?)|(?:答案|选项|选择)(?:应?[是为]|:)+|选项?",
    re.IGNORECASE,
)
_STATED = re.compile(rf"(?:{_STATEMENT.pattern})\s*\S", re.IGNORECASE)
_STATED_LETTER = re.compile(
    r"[\s*\"'“$\[{<]{0,9}(?:(?:[Tt]he\s+)?(?:[Oo]ption|[Cc]hoice)\s+)?"
    r"(?:\(([A-Za-z])\)|\(?([A-Z])(?![A-Za-z'\u2019]))"
)
_FIRST_LETTER = re.compile(
    r"[\s*\"'“]{0,9}(?:(?:the\s+)?(?:option|choice)\s+)?(?:\(([A-Z])\)|([A-Z])(?=[^\S\n]{0,9}(?:[).:,\u2013\n-]|\Z)))"
)
_NAMED_LETTER = re.compile(r"\b(?:[Oo]ption|[Cc]hoice)\s+\(?([A-Z])\b")
_LAST_LETTER = re.compile(r"(?<![A-Za-z])\(?([A-Z])\)?[\s.*$)\]。]{0,9}\Z")
_LAST_LINE = re.compile(r"\n[\s*(\[$]{0,9}([A-Z])[\s.*$)\]。]{0,9}\Z")
_LAST_LINE_NUMBER = re.compile(r"\n[\s*$]{0,9}(-?\d[\d,]{0,15}(?:\.\d+)?)[\s.*$]{0,9}\Z")
_LIST_MARKER = re.compile(r"^\s*\d{1,2}[.)]\s", re.MULTILINE)
_BRACKETED = re.compile(r"\(([A-Z])\)")
_YES_OR_NO = re.compile(r"\W{0,9}(yes|no)\b", re.IGNORECASE)
_NOT = re.compile(r"\bnot?\b|n't\b", re.IGNORECASE)
_OPEN = re.compile(
    r"cannot|can't|can not|unable|impossible|insufficient|unclear|n't\s+(?:provide|have)|"
    r"not\s+(?:possible|enough|sufficient|provide|specif|clear|have|mention|given)|without\s+(?:more|further|any)",
    re.IGNORECASE,
)
# A sentence that says of the question or of all its options that there is no answer.
_NO_ANSWER = re.compile(
    r"none of the|no\s+(?:option|choice)|mistake\s+in|"
    r"not?\s+(?:an\s+option|one\s+of|available|in\s+the\s+(?:options|choices)|match)|(?:cannot|can't|unable|impossible|not\s+possible|not\s+enough|insufficient|not\s+provided?)"
    r".{0,200}(?:determin|answer|solution|information|options?|choices|provid|question|calculat|context)|无法|选项中没有",
    re.IGNORECASE,
)
_NO_SOLUTION = re.compile(r"solution|cannot be (?:determined|provided)", re.IGNORECASE)
_CANNOT_BE = re.compile(r"(?:cannot|can't|can not)\s+be\s+(determined|answered)", re.IGNORECASE)
_IF = re.compile(r"\b(?:if|otherwise)\b", re.IGNORECASE)
_LETTER = re.compile(r"(?<![A-Za-z])[A-Z](?![A-Za-z'])(?<!I)(?<!A)|\(A\)")
_WORD = re.compile(r"[a-z]+|[0-9.]+")
_FILLERS = {"it", "would", "will", "be", "the", "a", "an", "i", "are", "of", "to", "in", "its", "become"}
_FUNCTION_WORDS = {
    "a", "an", "any", "the", "is", "are", "was", "were", "be", "do", "does", "did", "has", "have", "had", "can",
    "could", "will", "would", "this", "that", "these", "those", "there", "of", "in", "on", "to", "it",
}  # fmt: skip
_QUANTITY = re.compile(r"[$£€]?\s?(-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)\s?(?:°|º|%|[^\W\d]{0,12}\.?)")
_NUMBER_WORDS = dict(
    zip(
        (
            "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
            "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
        ),
        map(str, range(21)),
        strict=True,
    )
)  # fmt: skip
# "1,000" is one number; a full stop that ends a sentence is no part of one.
_NUMBER = re.compile(
    rf"(?<![\w.,])-?(?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d+)?(?!\d)|(?<![\w.])-?\.\d+|\b(?:{'|'.join(_NUMBER_WORDS)})\b",
    re.IGNORECASE | re.ASCII,
)
_BOLD = re.compile(r"\*\*([^*\n]{1,60})\*\*")
_VERB = re.compile(
    r"\b(?:is|are|was|were|be|equals?|approximately|about|only|total\s+of|gives?(?:\s+us)?|gets?|totals?|makes?)\b|[=≈]|:(?!\d)",
    re.IGNORECASE,
)


def option_in(response: str, choices: Sequence[str], question: str = "") -> str | None:
    """The letter of the option that a response takes, None where it takes none.

    A letter that is no option's is returned all the same. Where no option is named, a number that is concluded is
    returned as a text, to be compared with those of the options.

    Args:
        response: only its end is read, as much of it as a judge is shown.
        choices: the texts of the options.
        question: what it says counts less than what is new; a sentence in its words affirms a yes-or-no question.
    """
    text = _last_words(response)
    letters = ascii_uppercase[: len(choices)]
    sentences = list(_sentences(text))
    # "If ..., the answer is (A). Otherwise it is (B). Without the figure the answer cannot be determined."
    if sentences and _NO_ANSWER.search(sentences[-1]) and not _LETTER.search(sentences[-1]) and _IF.search(text):
        return None
    for segment in _statements(text):
        found = _STATED_LETTER.match(segment)
        if found and (letter := (found[1] or found[2]).upper()) in letters:
            return letter
        if named := _named(next(_sentences(segment), ""), choices):
            return ascii_uppercase[named[0]]
    if (found := _LAST_LINE.search(text)) and found[1] in letters:
        return found[1]
    if found := _FIRST_LETTER.match(text):
        return found[1] or found[2]
    yes_or_no = sorted(choice.strip().lower() for choice in choices) == ["no", "yes"]
    if yes_or_no and (found := _YES_OR_NO.match(text)):
        return _letter_of(found[1], choices)
    if (found := _LAST_LETTER.search(text)) and found[1] in letters:
        return found[1]
    if any(_NO_ANSWER.search(sentence) for sentence in sentences[-2:]):
        return None
    if bracketed := [letter for letter in _BRACKETED.findall(text) if letter in letters]:
        return bracketed[-1]
    concluding = [sentence for sentence in reversed(sentences) if _CONCLUSION.search(sentence)]
    for sentence in concluding:
        if named := _named(sentence, choices):
            return ascii_uppercase[named[-1]]
    if chosen := [letter for letter in _NAMED_LETTER.findall(text) if letter in letters]:
        return chosen[-1]
    if all(_QUANTITY.fullmatch(choice.strip()) for choice in choices):
        for sentence in concluding:
            if number := _number_of(sentence, frozenset()):
                return number
    told = set(_named(question, choices))
    for sentence in sentences:
        if named := _named(sentence, choices):
            return ascii_uppercase[next((index for index in named if index not in told), named[0])]
    if yes_or_no and not _OPEN.search(text) and not text.endswith("?"):
        for sentence in (*concluding, *sentences):
            if _echoes(sentence, question):
                return _letter_of("no" if _NOT.search(sentence) else "yes", choices)
    for sentence in (*concluding, *sentences):
        if (index := _worded(sentence, choices)) is not None:
            return ascii_uppercase[index]
    for sentence in (*concluding, *(sentences if len(sentences) == 1 else ())):
        if number := _number_of(sentence, frozenset()):
            return number
    return None


def refusal_in(response: str) -> str | None:
    """What stands for an answer where a response says that there is none, None where it does not say so.

    A single sentence stands for itself. Of several, the last one counts: a bracketed letter in it, which is that of an
    option the response made up, then its "cannot be determined" or "cannot be answered". "N/A" stands for all else.
    """
    text = _last_words(response)
    sentences = list(_sentences(text))
    if not any(_NO_ANSWER.search(sentence) or _OPEN.search(sentence) for sentence in sentences):
        return None
    if len(sentences) == 1 and _NO_ANSWER.search(text) and not _NO_SOLUTION.search(text):
        return text
    if letters := _BRACKETED.findall(sentences[-1]):
        return letters[-1]
    found = _CANNOT_BE.search(sentences[-1])
    return f"Cannot be {found[1].lower()}" if found else "N/A"


def number_in(response: str, question: str = "") -> str | None:
    """The number that a response answers with, without the commas between its thousands; None where there is none.

    Args:
        response: only its end is read, as much of it as a judge is shown.
        question: what it says counts less than a number that is new.
    """
    text = _last_words(response)
    known = frozenset(map(_plain, _NUMBER.findall(question)))
    for segment in _statements(text):
        if number := _number_of(next(_sentences(segment), ""), known, after_verb=False):
            return number
    if found := _LAST_LINE_NUMBER.search(text):
        return _plain(found[1])
    text = _LIST_MARKER.sub("", text)
    bold = {number for one in _BOLD.findall(text) if (number := _number_of(one, frozenset(), after_verb=False))}
    if len(bold) == 1:
        return bold.pop()
    sentences = list(_sentences(text))
    for sentence in reversed(sentences):
        if _CONCLUSION.search(sentence) and (number := _number_of(sentence, known)):
            return number
    own = set(_words(question))
    for sentence in reversed(sentences):
        words = [word for word in _words(sentence) if not word.isdigit()]
        echoes = sum(word in own for word in words) >= ECHO * len(words) > 0
        if echoes and (number := _number_of(sentence, known, new=True)):
            return number
    if _OPEN.search(text):
        return None
    # What is worked out line by line ends with its result, a sentence or two begin with it.
    worked_out = text.count("\n") > 2
    for sentence in reversed(sentences) if worked_out else sentences:
        if number := _number_of(sentence, known, new=True):
            return number
    return next((number for sentence in reversed(sentences) if (number := _number_of(sentence, known))), None)


def _last_words(response: str) -> str:
    """The end of a response; of several questions and answers the last that says or concludes something."""
    text = end_of(response).translate(_PLAIN_SIGNS).strip()
    parts = [part for part in _NEXT_EXAMPLE.split(text) if _STATED.search(part) or _CONCLUSION.search(part)]
    return parts[-1].strip() if parts else text


def _statements(text: str) -> Iterator[str]:
    """What follows the last statements, the last one first."""
    ends = [found.end() for found in _STATEMENT.finditer(text)]
    return (text[end : end + STATED] for end in reversed(ends[-STATEMENTS:]))


def _sentences(text: str) -> Iterator[str]:
    return (sentence.strip() for sentence in _SENTENCES.split(text) if sentence.strip())


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _echoes(sentence: str, question: str) -> bool:
    """Whether a sentence has all words of a yes-or-no question, those it begins and ends with in this order."""
    asked = [word.rstrip("es") for word in _words(question) if word not in _FUNCTION_WORDS]
    words = [word.rstrip("es") for word in _words(sentence)]
    if not asked or not set(asked) <= set(words):
        return False
    return words.index(asked[0]) <= len(words) - 1 - words[::-1].index(asked[-1])


def _letter_of(text: str, choices: Sequence[str]) -> str:
    return ascii_uppercase[[choice.strip().lower() for choice in choices].index(text.lower())]


def _named(sentence: str, choices: Sequence[str]) -> list[int]:
    """The options that a sentence names by their text, or by the number in it, in the order of the sentence."""
    found: list[tuple[int, int]] = []
    rest = sentence.lower()
    for index, pattern in _patterns(tuple(choices)):
        begins = [(hit.start(), index) for hit in pattern.finditer(rest)]
        if begins:
            found += begins
            # What is within a longer option does not name a shorter one.
            rest = pattern.sub(lambda hit: "\0" * len(hit[0]), rest)
    return [index for _, index in sorted(found)]


@lru_cache(maxsize=4096)
def _patterns(choices: tuple[str, ...]) -> list[tuple[int, re.Pattern[str]]]:
    """What finds each option in lower case, the longest option first."""
    patterns = []
    for index, choice in sorted(enumerate(choices), key=lambda one: -len(one[1])):
        text = choice.strip().strip("$.").lower()
        # A letter is read as one: "a" is a word.
        if not text or (len(text) == 1 and text.isalpha()):
            continue
        left = r"(?<![\w.,])" if text[0].isdigit() else r"(?<!\w)" if text[0].isalnum() else ""
        right = r"(?!\w|\.\d)" if text[-1].isalnum() else ""
        pattern = left + re.escape(text) + right
        if quantity := _QUANTITY.fullmatch(text):
            number = re.escape(quantity[1].replace(",", "")) + r"(?:\.0+)?"
            pattern += rf"|(?<![\w.,:]){number}(?:(?![\w:/^]|\.\d|,\d)|(?:cm|m)\b)"
        patterns.append((index, re.compile(pattern)))
    return patterns


def _worded(sentence: str, choices: Sequence[str]) -> int | None:
    """The only option of which a sentence has all words, in any order."""
    words = _stems(sentence)
    found = [index for index, choice in enumerate(choices) if (own := _stems(choice) - _FILLERS) and own <= words]
    return found[0] if len(found) == 1 else None


def _stems(text: str) -> set[str]:
    return {word.rstrip("s") for word in _WORD.findall(text.lower())}


def _number_of(sentence: str, known: frozenset[str], *, after_verb: bool = True, new: bool = False) -> str | None:
    """The number of a sentence: rather one that is not `known`, or only such a one, after the last verb or "="."""
    numbers = list(_NUMBER.finditer(sentence))
    unknown = [number for number in numbers if _plain(number[0]) not in known]
    numbers = unknown if new else unknown or numbers
    if not numbers:
        return None
    if after_verb:
        for verb in reversed(list(_VERB.finditer(sentence))):
            if numbers[-1].start() >= verb.end():
                return _plain(next(number[0] for number in numbers if number.start() >= verb.end()))
    return _plain(numbers[0][0])


def _plain(number: str) -> str:
    return _NUMBER_WORDS.get(number.lower(), number.replace(",", ""))
