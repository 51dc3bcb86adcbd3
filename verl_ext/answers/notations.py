"""Ranges, scores, dates, clock times and dimensions, which look like arithmetic but are not.

`notation_of` recognizes them in normalized text before the text is parsed as mathematics: 2010-2015 is not a
difference, 1/2/2020 is not a quotient, and 9:05 is not the ratio 9:5.
"""

import re
from typing import NamedTuple

from verl_ext.answers.number_words import number_in_words
from verl_ext.answers.phrases import CHANGES, COMPARATIVES, MONTHS, NAMES_OF_TIMES
from verl_ext.answers.tokens import FRACTION_WORDS, NUMBER_WORDS
from verl_ext.answers.units import unit_of

_MONTHS = {spelled: MONTHS.index(name) + 1 for spelled, name in NAMES_OF_TIMES.items() if name in MONTHS}
_NUMBER = r"(?:(?!0+,)\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
# A unit or a percent sign. A single letter right after the number is a variable, so it needs a space to be a unit.
_POWER = r"(?:\^?[23]|/[A-Za-z]+(?:\^?[23])?)?"
_UNIT = rf"(?:\s*[%°Ω]|\s*[numkMGμ]Ω|\s*(?:[A-Za-z]{{2,}}|°[CF]){_POWER}|\s+[A-Za-z]{_POWER})"
_QUANTITY = rf"[$€£¥]?\s*{_NUMBER}{_UNIT}?"
_TO = "(?:to|through|thru|until|till)"
_RANGE = re.compile(
    rf"(?:between\s+)(?P<between>{_QUANTITY})\s+and\s+(?P<and>{_QUANTITY})"
    rf"|(?:from\s+)?(?P<low>-?{_QUANTITY})(?:\s*-\s*|\s+{_TO}\s+)(?P<high>-?{_QUANTITY})",
    re.IGNORECASE,
)
# Ranges between times of day, days, months, or numbers in words.
_RANGE_OF_TIMES = re.compile(
    rf"(?:from\s+|between\s+(?=.*\sand\s))?(?P<low>[^-]+?)(?:\s*-\s*|\s+(?:{_TO}|and)\s+)(?P<high>[^-]+)", re.IGNORECASE
)
# Words after a range that are not units: 5 to 10 thousand and 5-10 more differ from 5 to 10.
_NO_UNITS = frozenset({*NUMBER_WORDS, *FRACTION_WORDS, *COMPARATIVES, *CHANGES})
_PARTS = re.compile(rf"([$€£¥]?)\s*({_NUMBER})({_UNIT}?)")
_ISO_DATE = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})")
_DIGIT_GROUPS = re.compile(r"\d+(?:-\d+){2,}|\d+(?:/\d+){2,}|\d+(?:\.\d+){2,}")
_DAY = r"(?P<day{0}>\d{{1,2}})(?:st|nd|rd|th)?"
_MONTH = "|".join(_MONTHS)
_DATE = re.compile(
    rf"(?:on\s+)?(?:[a-z]+day,?\s+)?(?:(?P<month1>{_MONTH})\.?\s+(?:the\s+)?{_DAY.format(1)}"
    rf"|(?:the\s+)?{_DAY.format(2)}\s+(?:of\s+)?(?P<month2>{_MONTH})\.?|(?:in\s+)?(?P<month3>{_MONTH})\.?(?=,?\s+\d{{4}}))"
    r"(?:,?\s+(?P<year>\d{4}))?",
    re.IGNORECASE,
)
_CHINESE_DATE = re.compile(r"(?:(\d{4})年)?(\d{1,2})月(?:(\d{1,2})[日号])?")
_CLOCK = re.compile(
    r"(?:at\s+)?(?P<hour>\d{1,2})(?:(?::|\.(?=\d\d\s*[ap]\.?\s?m\b))(?P<minute>\d{2})(?::(?P<second>\d{2}))?)?\s*(?P<clock>o'?clock)?\s*"
    r"(?P<half>[ap]\.?\s?m(?:\.|\b)|in\s+the\s+(?:morning|afternoon|evening))?",
    re.IGNORECASE,
)
_CLOCK_IN_WORDS = re.compile(
    r"(?:at\s+)?(?:an?\s+)?(?P<minutes>half|quarter|\d{1,2}|[a-z]+(?:[- ](?!minute)[a-z]+)?)(?:\s+minutes?)?\s+"
    r"(?P<side>past|to)\s+(?P<hour>\d{1,2}|[a-z]+)(?:\s+o'?clock)?",
    re.IGNORECASE,
)
_CHINESE_CLOCK = re.compile(
    r"(?=.*[点时午早晚])(?P<half>上午|早上|下午|晚上)?(\d{1,2})(?:[点时:](\d{1,2})分?|点(半|整)?)"
)
_DIMENSIONS = re.compile(rf"{_NUMBER}{_UNIT}?(?:\s*(?:×|\bby\b|(?<=[\d ])[xX](?=[\d ]))\s*{_NUMBER}{_UNIT}?){{1,2}}")
_BY = re.compile(r"×|\bby\b|[xX](?=[\d ])")
_OUT_OF = re.compile(r"(\d{1,9})\s+(?:(?:out\s+)?of|in)\s+(\d{1,9})", re.IGNORECASE)


# Cheap test: every notation matches one of these two patterns.
_WORDS = re.compile(r" past |[a-z]\.?(?: (?:to|through) |\s?-\s?)[A-Za-z]{2}", re.IGNORECASE)
_HINTS = re.compile(r"\d.*[-:/.×年月点时A-Za-z]|[A-Za-z].*\d", re.DOTALL)


class Notation(NamedTuple):
    """The content of an answer in one of these notations.

    text: the content without details.
    details: what other answers may leave out, as (kind, detail) pairs.
    instead: another possible reading: 3 to 4 may mean 3:4.
    product: for dimensions with a multiplication sign, the product, which is the first reading; `text` is the second.
    """

    text: str
    details: tuple[tuple[str, str], ...] = ()
    instead: str | None = None
    product: str | None = None


def notation_of(text: str) -> Notation | None:
    """Recognize one of the notations; None for other text."""
    # LaTeX that survived normalization is mathematics.
    if "\\" in text or not (_HINTS.search(text) or _WORDS.search(text)):
        return None
    return _clock(text) or _date(text) or _range(text) or _range_of_times(text) or _dimensions(text) or _share(text)


def _range(text: str) -> Notation | None:
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    low, high = (match["between"], match["and"]) if match["between"] else (match["low"], match["high"])
    ends, units = [], []
    for end in (low, high):
        parts = _PARTS.fullmatch(end.removeprefix("-").strip())
        assert parts
        ends.append(("-" if end.startswith("-") else "") + _trimmed(parts[2]))
        units.append((parts[1] + parts[3]).strip())
    if any(unit.lower() in _NO_UNITS for unit in units):
        return Notation(f"{ends[0]} {units[0] or units[1]} to {ends[1]} {units[1]}".lower())
    if not all(map(_is_unit, units)):
        return None
    if units[0] and units[1] and units[0] != units[1]:
        return Notation(f"{ends[0]} {units[0]} to {ends[1]} {units[1]}")
    unit = units[0] or units[1]
    return Notation(
        f"{ends[0]} to {ends[1]}",
        (("unit", unit),) if unit else (),
        f"{ends[0]}:{ends[1]}" if re.search(r"\d\s+to\s", text) and not unit else None,
    )


def _range_of_times(text: str) -> Notation | None:
    match = _RANGE_OF_TIMES.fullmatch(text)
    if match is None or (" and " in text.lower()) != text.lower().startswith("between"):
        return None
    # With a hyphen, words are not a range of numbers: twenty-five is one number.
    ends = [_time(match[end], in_words="-" not in text) for end in ("low", "high")]
    return None if None in ends else Notation(f"{ends[0]} to {ends[1]}")


def _time(text: str, *, in_words: bool) -> str | None:
    """Return a time of day, day, month, date or, with `in_words`, number in one spelling; None for other text."""
    if name := NAMES_OF_TIMES.get(text.rstrip(".").lower()):
        return name
    if notation := _clock(text) or _date(text):
        return " ".join((notation.text, *(detail for _, detail in notation.details)))
    number = number_in_words(text) if in_words else None
    return number if number and number.isdecimal() else None


def _is_unit(text: str) -> bool:
    """Whether text is empty, a known unit or a counted noun, rather than variables."""
    head = re.match(r"[A-Za-zμΩ]*", text)
    assert head
    return not head[0] or (len(head[0]) > 3 and text.lower() not in _NO_UNITS) or unit_of(head[0]) is not None


def _trimmed(number: str) -> str:
    whole, _, decimals = number.replace(",", "").partition(".")
    return (whole.lstrip("0") or "0") + (f".{decimals.rstrip('0')}" if decimals.rstrip("0") else "")


def _date(text: str) -> Notation | None:
    if match := _ISO_DATE.fullmatch(text):
        return Notation(_date_text(match[1], match[3], match[4]))
    if _DIGIT_GROUPS.fullmatch(text):
        return Notation(re.sub(r"\d+", lambda group: _trimmed(group[0]), text))
    if match := _CHINESE_DATE.fullmatch(text):
        return None if match[3] is None and match[1] is None else Notation(_date_text(match[1], match[2], match[3]))
    if match := _DATE.fullmatch(text):
        month = _MONTHS[(match["month1"] or match["month2"] or match["month3"]).lower()]
        return Notation(_date_text(match["year"], month, match["day1"] or match["day2"]))
    return None


def _date_text(*parts: str | int | None) -> str:
    return f"date {'-'.join(str(int(part)) if part is not None else '' for part in parts)}"


def _clock(text: str) -> Notation | None:
    if match := _CLOCK_IN_WORDS.fullmatch(text):
        return _clock_in_words(match)
    if match := _CHINESE_CLOCK.fullmatch(text):
        half = {"": "", "上午": " am", "早上": " am"}.get(match["half"] or "", " pm")
        text = f"{match[2]}:{match[3] or ('30' if match[4] == '半' else '00'):0>2}{half}"
    match = _CLOCK.fullmatch(text)
    if match is None or not (match["minute"] or match["clock"] or match["half"]):
        return None
    hour, minute, second = int(match["hour"]), int(match["minute"] or 0), int(match["second"] or 0)
    if hour > 24 or minute > 59 or second > 59:
        return None
    half = match["half"] and ("a" if match["half"][0] in "aA" or "morning" in match["half"].lower() else "p")
    in_24_hours = None
    if half:
        other = hour % 12 + (12 if half == "p" else 0)
        in_24_hours = None if other == hour or hour > 12 else f"{other}:{minute:02}"
    # The text is also that of the ratio of these numbers, in case it means one.
    time = f"{hour}:{minute:02}" + (f":{second:02}" if match["second"] else "")
    return Notation(time, (("half of the day", half),) if half else (), in_24_hours)


def _clock_in_words(match: re.Match[str]) -> Notation | None:
    minutes, hour = (number_in_words(match[part]) or match[part] for part in ("minutes", "hour"))
    if match["minutes"].lower() in ("half", "quarter"):
        minutes = "30" if match["minutes"].lower() == "half" else "15"
    if not (minutes.isdigit() and hour.isdigit() and int(minutes) < 60 and 1 <= int(hour) <= 12):
        return None
    if match["side"].lower() == "past":
        return Notation(f"{int(hour)}:{int(minutes):02}")
    # "Five to ten" without "quarter" or "minutes" is a range.
    is_time = match["minutes"].lower() == "quarter" or "minute" in match[0].lower()
    return Notation(f"{(int(hour) - 2) % 12 + 1}:{60 - int(minutes):02}") if is_time and int(minutes) else None


def _dimensions(text: str) -> Notation | None:
    if not _DIMENSIONS.fullmatch(text):
        return None
    parts = [_PARTS.fullmatch(part.strip()) for part in _BY.split(text)]
    if not all(parts):
        return None
    units = {part[3].strip() for part in parts if part and part[3].strip()}
    if not all(map(_is_unit, units)):
        return None
    numbers = [_trimmed(part[2]) for part in parts if part]
    product = "*".join(numbers) if "×" in text and not units else None
    unit = units.pop() if len(units) == 1 else text if units else ""
    return Notation(" by ".join(numbers), (("unit", unit),) if unit else (), product=product)


def _share(text: str) -> Notation | None:
    match = _OUT_OF.fullmatch(text)
    return None if match is None else Notation(f"{int(match[1])} out of {int(match[2])}", (), f"{match[1]}/{match[2]}")
