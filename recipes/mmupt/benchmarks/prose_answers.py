r"""Extracts answers from responses without a box, by rules that replace a judge model.

In order of priority: a statement ("the answer is ...", "option C"), the letter that opens or ends the response, the
concluding sentence ("Therefore, ..."), and the first sentence that names an option or a number. If a response goes on
to further questions, its last answer counts, as it does for a judge.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from string import ascii_uppercase

from mmupt.benchmarks.judge_prompts import end_of

# Statements to read, counted from the last one, and characters to read after each.
STATEMENTS = 10
STATED = 500
# Fraction of its words that a sentence must share with the question to be about it.
ECHO = 0.6
# Characters at the end to search for a final answer.
END = 60
# Sentences from which a response counts as a derivation, unless it starts with a refusal.
WORKED_OUT = 4
# Fraction of the question's words that a sentence must have to make the same comparison.
ALIKE = 0.7

_PLAIN_SIGNS = str.maketrans("\uff08\uff09\uff1a\uff0c\uff0e\u2212", "():,.-")
_NEXT_EXAMPLE = re.compile(r"\n\s*(?:Hint\s*:.*|(?:Question|Image|Example)\s*:)")
_SENTENCES = re.compile(r"(?<=[.!?])\s+|[。\uff01\uff1f\n]+")
# Word patterns expect lower case: ignoring case is slow.
_CONCLUSION = re.compile(
    r"\b(?:therefore|thus|hence|so|consequently|in conclusion|in summary|final|finally|overall)\b|因此|所以|[故∴]"
)
_STATES = (
    r"(?:\s+to\s+(?:the|this|your)\s+\w+)?(?:\s+letter)?"
    r"(?:\s*:|\s+(?:is|would\s+be|should\s+be|must\s+be|will\s+be)\b\s*:?)|(?:答案|选项|选择)(?:应?[是为]|:)+|选项?"
)
_STATEMENT = re.compile(rf"\b(?:answer|option|choice){_STATES}|\b(?:select|choose|pick)\b(?=\s+[\"'“(]*[a-z]\b)")
# A list of options is not an answer: "the options are: 0-10 %".
_STATED_NUMBER = re.compile(rf"\banswer{_STATES}|\bfinal\s+value\s+is\b")
# Every statement contains one of these substrings, which are much faster to find than the pattern.
_STATING = ("answer", "option", "choice", "final", "select", "choose", "pick", "答", "选")
_STATED = re.compile(rf"(?:{_STATEMENT.pattern})\s*\S")
_STATED_LETTER = re.compile(
    r"[\s*\"'“$\[{<]{0,9}(?:(?:[Tt]he\s+)?(?:[Oo]ption|[Cc]hoice)\s+)?"
    r"(?:\(([A-Za-z])\)|\(?([A-Z])(?![A-Za-z'\u2019]))"
)
_FIRST_LETTER = re.compile(
    r"[\s*\"'“]{0,9}(?:(?:the\s+)?(?:option|choice)\s+)?(?:\(([A-Z])\)|([A-Z])(?=[^\S\n]{0,9}(?:[).:,\u2013\n-]|\Z)))"
)
_SUBJECT_LETTER = re.compile(r"(?<![A-Za-z])\(?([A-Z])\)?\s+is\s+the\s+(?:\w+\s+)?(?:answer|option|choice)\b")
_NAMED_LETTER = re.compile(r"\b(?:[Oo]ption|[Cc]hoice)\s+\(?([A-Z])\b")
_LAST_LETTER = re.compile(r"(?<![A-Za-z0-9])\(?([A-Z])\)?[\s.*$)\]。]{0,9}\Z")
_LAST_LINE = re.compile(r"\n[\s*(\[$]{0,9}([A-Z])[\s.*$)\]。]{0,9}\Z")
_LAST_LINE_NUMBER = re.compile(r"\n[\s*$]{0,9}(-?\d[\d,]{0,15}(?:\.\d+)?)[\s.*$]{0,9}\Z")
_LIST_MARKER = re.compile(r"^\s*\d{1,2}[.)]\s", re.MULTILINE)
# "sin(A)" is not an option.
_BRACKETED = re.compile(r"(?<!\w)\(([A-Z])\)", re.ASCII)
_YES_OR_NO = re.compile(r"\W{0,9}(yes|no)\b")
_NOT = re.compile(r"\b(?:not?|false|incorrect|untrue)\b|n't\b")
# Things that a response without an answer calls missing.
_LACKED = r"(?:\w+\s+){0,2}(?:information|context|data|details?|images?|figures?|diagrams?|access|abilit\w+)"
_OPEN = re.compile(
    r"cannot|can't|can not|unable|impossible|insufficient|unclear|incomplete|n't\s+provide|"
    rf"(?:not|n't)\s+have\s+{_LACKED}|(?:not\s+(?:enough|sufficient)|missing|no)\s+{_LACKED}|"
    r"more\s+(?:information|context|details)|without\s+(?:more|further|any)|"
    r"not\s+(?:possible|provide|specif|clear|mention|given|valid)"
)
# A sentence that says that the question, or none of its options, has an answer.
_NO_ANSWER = re.compile(
    r"none of the|no\s+(?:option|choice)|mistake\s+in|"
    r"question\s+is\s+(?:incomplete|missing|not\s+(?:clear|complete|valid))|"
    r"not?\s+(?:an\s+option|one\s+of|among|listed|available|in\s+the\s+(?:options|choices)|match)|"
    r"(?:cannot|can't|unable|impossible|not\s+possible|not\s+enough|insufficient|not\s+provided?)"
    r".{0,200}(?:determin|answer|solution|information|options?|choices|provid|question|calculat|context)|"
    r"无法|选项中没有|不在选"
)
_REQUEST = re.compile(r"please|(?:can|could)\s+you\b")
_NO_SOLUTION = re.compile(r"solution|cannot be (?:determined|provided)")
_CANNOT_BE = re.compile(r"(?:cannot|can't|can not)\s+be\s+(determined|answered)")
_IF = re.compile(r"\b(?:if|otherwise)\b")
# "If caterpillars decrease, plants increase" states something about plants only.
_CONDITION = re.compile(r"^\s*(?:if|when)\b[^,]*,")
_LETTER = re.compile(r"(?<![A-Za-z])[A-Z](?![A-Za-z'])(?<!I)(?<!A)|\(A\)")
_ROOT = re.compile(r"√\{(\w+)\}")
_ANY_WORD = re.compile(r"\w+")
_WORD = re.compile(r"[a-z]+|[0-9.]+")
_FILLERS = {"it", "would", "will", "be", "the", "a", "an", "i", "are", "of", "to", "in", "its", "become"}
_FUNCTION_WORDS = {
    "a", "an", "any", "the", "is", "are", "was", "were", "be", "do", "does", "did", "has", "have", "had", "can",
    "could", "will", "would", "this", "that", "these", "those", "there", "of", "in", "on", "to", "it",
    "most",
}  # fmt: skip
_IN_DOLLARS = "(Unit: $)"
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
# "1:2" and "13 to 20" are not numbers.
_SEVERAL = re.compile(r"\d(?:\s?:\s?|\s(?:to|-|\u2013)\s|[-\u2013])-?\d+(?:\.\d+)?", re.ASCII)
# "1,000" is one number; the full stop at the end of a sentence is not part of it.
_NUMBER = re.compile(
    rf"(?<![\w.,])-?(?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d+)?(?!\d)|(?<![\w.])-?\.\d+|\b(?:{'|'.join(_NUMBER_WORDS)})\b",
    re.ASCII,
)
_BOLD = re.compile(r"\*\*([^*\n]{1,60})\*\*")
_VERB = re.compile(
    r"\b(?:is|are|was|were|be|equals?|approximately|about|only|(?:total|value)\s+of|gives?(?:\s+us)?|gets?|totals?|makes?)\b"
    r"|[=≈]|:(?!\d)"
)


def option_in(response: str, choices: Sequence[str], question: str = "") -> str | None:
    """Return the letter of the option that a response chooses, None if it chooses none.

    Letters beyond the options are returned too. If the response names no option, a concluding number is returned as
    text for comparison with the options.

    Args:
        response: only its end is read, as much as a judge sees.
        choices: the texts of the options.
        question: options it names count less than others; a sentence in its words affirms a yes-or-no question.
    """
    text = _last_words(response)
    letters = ascii_uppercase[: len(choices)]
    lowered = _lowered(text)
    opening = _FIRST_LETTER.match(text)
    # "If ..., the answer is (A). Otherwise it is (B). Without the figure the answer cannot be determined."
    if not opening and ("if" in lowered or "otherwise" in lowered) and _IF.search(lowered):
        *_, last = _sentences(text)
        if _NO_ANSWER.search(last.lower()) and not _LETTER.search(last):
            return None
    for segment in _statements(text, lowered, _STATEMENT):
        found = _STATED_LETTER.match(segment)
        if found and (letter := (found[1] or found[2]).upper()) in letters:
            return letter
        if named := _named(next(_sentences(segment), ""), choices):
            return ascii_uppercase[named[0]]
    if (found := _LAST_LINE.search(text[-END:])) and found[1] in letters:
        return found[1]
    if " is the " in text and (found := _SUBJECT_LETTER.search(text)):
        return found[1]
    if opening:
        letter = opening[1] or opening[2]
        # "A: no" is short for "Answer: no", and "(D) no" of two options is the one with that text.
        if text.startswith("A:") or letter not in letters:
            return _same_text(text[opening.end() :], choices) or letter
        return letter
    yes_or_no = sorted(choice.strip().lower() for choice in choices) == ["no", "yes"]
    if yes_or_no and (found := _YES_OR_NO.match(lowered)):
        return _letter_of(found[1], choices)
    if (found := _LAST_LETTER.search(text[-END:])) and found[1] in letters:
        return found[1]
    sentences = list(_sentences(lowered))
    if any(_NO_ANSWER.search(sentence) for sentence in sentences[-2:]):
        return None
    if "(" in text and (bracketed := [letter for letter in _BRACKETED.findall(text) if letter in letters]):
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
    in_question = set(_named(question, choices))
    for sentence in sentences:
        if named := _named(sentence, choices):
            return ascii_uppercase[next((index for index in named if index not in in_question), named[0])]
    if yes_or_no and not text.endswith("?"):
        for sentence in (*concluding, *sentences):
            if not _OPEN.search(sentence) and _echoes(sentence, question):
                return _letter_of("no" if _NOT.search(sentence) else "yes", choices)
    for sentence in (*concluding, *sentences):
        if (index := _worded(sentence, choices)) is not None:
            return ascii_uppercase[index]
    for sentence in (*concluding, *(sentences if len(sentences) == 1 else ())):
        if number := _number_of(sentence, frozenset()):
            return number
    return None


def refusal_in(response: str) -> str | None:
    """Return the text to score as the answer of a response that refuses to answer; None if it does not refuse.

    Requests ("Please provide the figure.") are ignored. A single sentence is returned whole. Of several, the last one
    decides: a bracketed letter in it (an option that the response made up), its "cannot be determined" or "cannot be
    answered", or the whole sentence if it ends a derivation. Everything else gives "N/A".
    """
    text = _last_words(response)
    sentences = list(_sentences(text))
    if not any(map(_refuses, sentences)):
        return None
    sentences = [sentence for sentence in sentences if not _REQUEST.search(sentence.lower())] or sentences
    if len(sentences) == 1 and not _NO_SOLUTION.search(sentences[0].lower()):
        return sentences[0]
    if letters := _BRACKETED.findall(sentences[-1]):
        return letters[-1]
    if found := _CANNOT_BE.search(sentences[-1].lower()):
        return f"Cannot be {found[1]}"
    works_out = len(sentences) >= WORKED_OUT and not _refuses(sentences[0]) and _refuses(sentences[-1])
    return sentences[-1] if works_out else "N/A"


def _refuses(sentence: str) -> bool:
    lowered = sentence.lower()
    return bool(_NO_ANSWER.search(lowered) or _OPEN.search(lowered))


def number_in(response: str, question: str = "") -> str | None:
    """Return the number that a response gives as its answer, without thousands separators; None if there is none.

    Args:
        response: only its end is read, as much as a judge sees.
        question: its numbers count less than others.
    """
    text = _last_words(response)
    if _IN_DOLLARS in question:
        # Text recognition reads a dollar sign as this.
        text = re.sub(r"\bS(?=\d)", "$", text)
    text = text.lower()
    known = _numbers(question)
    for segment in _statements(text, text, _STATED_NUMBER):
        # Text on a new line may repeat the question before it answers.
        if number := _number_of(next(_sentences(segment), ""), known, after_verb=False, new=segment.startswith("\n")):
            return number
    if found := _LAST_LINE_NUMBER.search(text[-END:]):
        return _plain(found[1])
    text = _LIST_MARKER.sub("", text)
    if "**" in text:
        bold = {number for span in _BOLD.findall(text) if (number := _number_of(span, frozenset(), after_verb=False))}
        if len(bold) == 1:
            return bold.pop()
    sentences = list(_sentences(text))
    for sentence in reversed(sentences):
        concludes = _CONCLUSION.search(sentence) and not _OPEN.search(sentence)
        if (concludes or _is_about(sentence, question)) and (number := _number_of(sentence, known, new=not concludes)):
            return number
    if _OPEN.search(text):
        return None
    # A derivation over several lines ends with its result; one or two sentences start with it.
    worked_out = text.count("\n") > 2
    for sentence in reversed(sentences) if worked_out else sentences:
        if number := _number_of(sentence, known, new=True):
            return number
    return next((number for sentence in reversed(sentences) if (number := _number_of(sentence, known))), None)


def _last_words(response: str) -> str:
    """The end of a response; of several questions and answers, the last part with a statement or conclusion."""
    text = end_of(response)
    if not text.isascii():
        text = text.translate(_PLAIN_SIGNS)
    text = text.strip()
    parts = _NEXT_EXAMPLE.split(text)
    if len(parts) == 1:
        return text
    for part in reversed(parts):
        lowered = part.lower()
        if _STATED.search(lowered) or _CONCLUSION.search(lowered):
            return part.strip()
    return text


def _lowered(text: str) -> str:
    """Lower-case a text without changing its length."""
    lowered = text.lower()
    return lowered if len(lowered) == len(text) else "".join(character.lower()[:1] for character in text)


def _statements(text: str, lowered: str, statement: re.Pattern[str]) -> Iterator[str]:
    """The texts after the last statements, in reverse order."""
    if not any(word in lowered for word in _STATING):
        return iter(())
    ends = [found.end() for found in statement.finditer(lowered)]
    return (text[end : end + STATED] for end in reversed(ends[-STATEMENTS:]))


def _sentences(text: str) -> Iterator[str]:
    return (sentence.strip() for sentence in _SENTENCES.split(text) if sentence.strip())


@lru_cache(maxsize=4096)
def _words(text: str) -> tuple[str, ...]:
    return tuple(_ANY_WORD.findall(text.lower()))


def _is_about(sentence: str, question: str) -> bool:
    words = [word for word in _words(sentence) if not word.isdigit()]
    own = _words(question)
    return sum(word in own for word in words) >= ECHO * len(words) > 0


@lru_cache(maxsize=4096)
def _numbers(text: str) -> frozenset[str]:
    return frozenset(map(_plain, _NUMBER.findall(text.lower())))


def _echoes(sentence: str, question: str) -> bool:
    """Whether a sentence affirms or denies a yes-or-no question in the question's own words.

    The sentence has all of the question's words, in any order. A comparison may lack some if it puts the same thing
    before "than".
    """
    asked = _stemmed(word for word in _words(question) if word not in _FUNCTION_WORDS)
    words = _stemmed(_words(sentence))
    if "than" not in asked:
        return bool(asked) and set(asked) <= set(words)
    first, other = _around(asked, "than")
    if "than" not in words:
        return set(first) <= set(words)
    if sum(word in words for word in asked) < ALIKE * len(asked):
        return False
    before, after = _around(words, "than")
    subject = set(first) - set(other)
    return sum(word in before for word in subject) > sum(word in after for word in subject)


def _stemmed(words: Iterable[str]) -> list[str]:
    """Words without plural endings; "then" is a common slip for "than"."""
    return ["than" if word == "then" else word.rstrip("es") for word in words]


def _around(words: list[str], word: str) -> tuple[list[str], list[str]]:
    index = words.index(word)
    return words[:index], words[index + 1 :]


def _same_text(text: str, choices: Sequence[str]) -> str | None:
    """The letter of the option with this text."""
    text = text.strip(" ).:").lower()
    named = (
        index
        for index, choice in enumerate(choices)
        if re.fullmatch(rf"{re.escape(choice.lower())}(?:[,.].*)?", text, re.DOTALL)
    )
    return next((ascii_uppercase[index] for index in named), None)


def _letter_of(text: str, choices: Sequence[str]) -> str:
    return ascii_uppercase[[choice.strip().lower() for choice in choices].index(text.lower())]


def _named(sentence: str, choices: Sequence[str]) -> list[int]:
    """Indices of the options that a sentence names by their text or number, in the order of the sentence."""
    found: list[tuple[int, int]] = []
    rest = _unbraced(sentence.lower())
    for index, text, number in _texts(tuple(choices)):
        # Most options are not in the sentence, and patterns are slow to compile.
        if text not in rest and (number is None or number not in rest):
            continue
        pattern = _pattern(text, number)
        begins = [(hit.start(), index) for hit in pattern.finditer(rest)]
        if begins:
            found += begins
            # Part of a longer option does not name a shorter option.
            rest = pattern.sub(lambda hit: "\0" * len(hit[0]), rest)
    return [index for _, index in sorted(found)]


@lru_cache(maxsize=4096)
def _texts(choices: tuple[str, ...]) -> list[tuple[int, str, str | None]]:
    """Index, text in lower case and number (of a quantity) of each option, the longest option first."""
    texts = []
    for index, choice in sorted(enumerate(choices), key=lambda option: -len(option[1])):
        text = _unbraced(choice.strip().strip("$.").lower())
        # Single letters are left to the letter patterns: "a" is also a word.
        if text and not (len(text) == 1 and text.isalpha()):
            quantity = _QUANTITY.fullmatch(text)
            texts.append((index, text, quantity[1].replace(",", "") if quantity else None))
    return texts


@lru_cache(maxsize=4096)
def _pattern(text: str, number: str | None) -> re.Pattern[str]:
    """Compile the pattern that finds an option by its text or its number."""
    left = r"(?<![\w.,])" if text[0].isdigit() else r"(?<!\w)" if text[0].isalnum() else ""
    right = r"(?!\w|\.\d)" if text[-1].isalnum() else ""
    pattern = left + re.escape(text) + right
    if number:
        quantity = re.escape(number) + r"(?:\.0+)?"
        pattern += rf"|(?<![\w.,:]){quantity}(?:(?![\w:/^]|\.\d|,\d)|(?:cm|m)\b)"
    return re.compile(pattern)


def _unbraced(text: str) -> str:
    """Replace "2√{3}" with "2√3"."""
    return _ROOT.sub(r"√\1", text) if "√" in text else text


def _worded(sentence: str, choices: Sequence[str]) -> int | None:
    """Index of the only option whose words are all in a sentence, in any order."""
    words = _stems(_CONDITION.sub("", sentence))
    found = [index for index, choice in enumerate(choices) if (own := _stems(choice) - _FILLERS) and own <= words]
    return found[0] if len(found) == 1 else None


def _stems(text: str) -> set[str]:
    return {word.rstrip("s") for word in _WORD.findall(text.lower())}


def _number_of(sentence: str, known: frozenset[str], *, after_verb: bool = True, new: bool = False) -> str | None:
    """The number after the last verb or "=" of a sentence, preferably one that is not `known`; only such if `new`."""
    numbers = list(_NUMBER.finditer(sentence))
    unknown = [
        number
        for number in numbers
        if _plain(number[0]) not in known or sentence[: number.start()].rstrip(" $").endswith("=")
    ]
    numbers = unknown if new else unknown or numbers
    if not numbers:
        return None
    chosen = numbers[0]
    if after_verb:
        verbs = list(_VERB.finditer(sentence))
        # A colon after a number introduces its parts: "there are 3 left: 1 cube and 2 balls".
        counted = len(verbs) > 1 and any(verbs[0].end() <= number.start() < verbs[-1].start() for number in numbers)
        if counted and verbs[-1][0] == ":":
            verbs.pop()
        for verb in reversed(verbs):
            if numbers[-1].start() >= verb.end():
                chosen = next(number for number in numbers if number.start() >= verb.end())
                break
    if several := _SEVERAL.match(sentence, chosen.end() - 1):
        return sentence[chosen.start() : several.end()]
    return _plain(chosen[0])


def _plain(number: str) -> str:
    return _NUMBER_WORDS.get(number, number.replace(",", ""))
