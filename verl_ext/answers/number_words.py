"""Numbers in English and Chinese words: twenty-five, minus two, the fifth, three quarters, 三分之二."""

import re
from collections.abc import Sequence

from verl_ext.answers.units import IN_ORDER, ORDINAL, unit_of

CARDINALS = {
    word: number
    for number, word in enumerate(
        (
            "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
            "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
        )
    )
} | {
    word: 10 * tens
    for tens, word in enumerate(("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), start=2)
}  # fmt: skip
_SIGN_IN_WORDS = re.compile(
    r"(?P<sign>negative|minus|positive|负)\s*(?P<rest>[\d.$√]\S.*|\d|\\(?:frac|sqrt).*|[a-z-]+|[\u4e00-\u9fff]+)",
    re.I | re.S,
)
_ORDINAL_WORDS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
    "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth",
    "twentieth",
)  # fmt: skip
_ORDINAL = re.compile(
    rf"(?P<article>(?:the\s+|an?\s+(?!first|second))?)(?:(?P<word>{'|'.join(_ORDINAL_WORDS)})|(?P<digits>\d+)(?:st|nd|rd|th))"
    rf"(?P<rest>\s+{IN_ORDER})?",
    re.I,
)
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_SCALE = "|".join(_SCALES)
_NUMBER_IN_WORDS = re.compile(
    rf"(?:an?\s+(?={_SCALE}))?(?P<number>(?:(?:\band\s+(?!(?:one|two|three)[\s-]+(?:half|third|quarter|fourth)s?))?(?:{'|'.join(CARDINALS)}|{_SCALE})\b(?:[\s-]+|$))+)"
    r"(?P<part>and\s+(?:(?:a|one)[\s-]+(?:half|third|quarter)|two[\s-]+thirds|three[\s-]+(?:quarters|fourths))\b\s*)?(?P<rest>[A-Za-z][A-Za-z\s-]*)?",
    re.IGNORECASE,
)
_PARTS = {"half": "1/2", "third": "1/3", "thirds": "2/3", "quarter": "1/4", "quarters": "3/4", "fourths": "3/4"}
_CHINESE_NUMERAL = re.compile(
    r"(?P<numeral>[零一二两三四五六七八九十百]+)(?P<unit>[个人只本支名次块条张倍件辆]?|[\u4e00-\u9fff]+)"
)
_CHINESE_FRACTION = re.compile(
    r"(?P<below>[一二两三四五六七八九十百\d]+)分之(?:(?P<above>[零一二两三四五六七八九十百\d]+)|(?P<root>(?:\d*√|\\sqrt).+))"
)
_CHINESE_DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {"两": 2}


def signed_number_in_words(text: str) -> str | None:
    """Return the number of a phrase such as minus two and negative infinity; None for other text."""
    match = _SIGN_IN_WORDS.fullmatch(text)
    if match is None:
        return None
    if match["rest"].lower() == "infinity":
        return "-∞" if match["sign"].lower() != "positive" else "∞"
    rest = match["rest"]
    if rest.isalpha() or "-" in rest:
        rest = number_in_words(rest) or number_in_chinese(rest)
    return rest and ("" if match["sign"].lower() == "positive" else "-") + rest


def ordinal_in_words(text: str) -> str | None:
    """Return 5th for fifth and the 5th, and 1/5 for a fifth; None for other text."""
    match = _ORDINAL.fullmatch(text)
    if match is None:
        return None
    number = _ORDINAL_WORDS.index(match["word"].lower()) + 1 if match["word"] else int(match["digits"])
    if match["article"].lower().startswith("a"):
        return None if match["rest"] else f"1/{number}"
    return f"{number}{ORDINAL}{match['rest'] or ''}"


def number_in_words(text: str) -> str | None:
    """Return the digits of a number in words, with what it counts; None for other text."""
    match = _NUMBER_IN_WORDS.fullmatch(text)
    if match is None:
        return None
    number = _value_of([word for word in re.findall("[a-z]+", match["number"].lower()) if word != "and"])
    if number is None:
        return None
    part = f" {_PARTS[re.findall('[a-z]+', match['part'].lower())[-1]]}" if match["part"] else ""
    return f"{number}{part} {(match['rest'] or '').replace('-', ' ')}".strip()


def _value_of(words: Sequence[str]) -> int | None:
    """Return the value of number words such as two, hundred, forty, five; None if they do not form one number."""
    total, below = 0, 0
    # Upper limits of the next number and the next scale.
    limit, scale_limit = 100, 10**12
    for word in words:
        value, scale = CARDINALS.get(word, 0), _SCALES.get(word)
        if scale == 100 and below < 100:
            below, limit = (below or 1) * 100, 100
        elif scale and scale != 100 and scale < scale_limit:
            total, below, limit, scale_limit = total + (below or 1) * scale, 0, 100, scale
        elif not scale and value < limit and (value or len(words) == 1):
            below, limit = below + value, 10 if value >= 20 else 1
        else:
            return None
    return total + below


def number_in_chinese(text: str) -> str | None:
    """Return the digits of a Chinese number, with its unit, or of a Chinese fraction; None for other text."""
    if match := _CHINESE_FRACTION.fullmatch(text):
        above = match["root"] or chinese_numeral(match["above"])
        return f"{above}/{chinese_numeral(match['below'])}"
    match = _CHINESE_NUMERAL.fullmatch(text)
    if match is None or not ((len(match["unit"]) < 2 and match["unit"] not in ("角", "半")) or unit_of(match["unit"])):
        return None
    return f"{chinese_numeral(match['numeral'])}{match['unit']}"


def chinese_numeral(text: str) -> str:
    """Return the digits of a Chinese numeral up to 999; digits are returned unchanged."""
    if text[0] in "0123456789.":
        return text
    total, digit = 0, 1 if text[0] in "十百" else 0
    for character in text:
        if character in _CHINESE_DIGITS:
            digit = _CHINESE_DIGITS[character]
        else:
            total += digit * (10 if character == "十" else 100)
            digit = 0
    return str(total + digit)
