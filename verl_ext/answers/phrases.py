r"""Phrases around an answer that do not change it: "The area is 24", "approximately 2.5 cm", "No, because 3+4=7".

Each rule takes normalized text and returns the part with the same meaning, or None if the rule does not apply. A rule
applies only if the words that it drops cannot matter: "A is greater" and "B is greater" keep their subjects.
"""

import re
from collections.abc import Callable, Sequence

from verl_ext.answers.number_words import (
    CARDINALS,
    number_in_chinese,
    number_in_words,
    ordinal_in_words,
    signed_number_in_words,
)
from verl_ext.answers.tokens import VECTOR
from verl_ext.answers.units import ORDINAL, POWERS, unit_of

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
          "december")  # fmt: skip
# Full names of days and months, by full and abbreviated spellings in lower case.
NAMES_OF_TIMES = {spelled: name for name in (*_DAYS, *MONTHS) for spelled in (name, name[:3])} | {
    "tues": "tuesday", "thur": "thursday", "thurs": "thursday", "sept": "september",
}  # fmt: skip
_ANSWER = r"(?:(?:final|correct|right|best)\s+)?(?:answer|option|choice|solution|result)"
# Measured quantities: "a length of 8 cm", "area 24". Angles and sides are missing because they have numbers.
QUANTITY = (
    r"(?:(?:total|surface|lateral|maximum|minimum|average|mean)\s+)?(?:length|width|height|depth|thickness|area|perimeter"
    r"|circumference|radius|diameter|volume|distance|speed|velocity|mass|weight|slope|sum|mean|median|average|probability"
    r"|cost|price|total|temperature|density|pH)"
)
_LEAD = re.compile(
    rf"(?:(?:so|thus|hence|therefore)[,\s]+)?(?:the\s+|my\s+)?{_ANSWER}(?:\s+(?:is|are|=)\s*:?|\s*:)\s*(?P<rest>.+)"
    r"|(?:the\s+)?(?:final\s+)?answer\s+(?P<value>[-(\d√\\].*|can(?:not|'t)\s.*)|(?:we\s+)?(?:find|get|have|obtain|conclude|see)(?:\s+that)?\s+(?P<found>.+)"
    r"|(?P<named>.+?)\s+is\s+the\s+(?:final\s+|correct\s+)?(?:answer|solution)(?:\s+set)?"
    r"|(?P<measured>-?\d[\d./]*)\s+is\s+the\s+[a-z\s]+"
    r"|(?!it\b|this\b|that\b)(?P<most>[^,;]+?)\s+(?:is|was|has|had)\s+the\s+(?:most|least|[a-z]{3,}est)\b(?:(?!\band\b)[^,;])*"
    r"|(?:I\s+)?(?:choose|select|pick)\s+(?P<chosen>(?-i:[(A-H]).*)"
    r"|(?P<right>(?-i:(?:[Ss]tatement\s+|[Oo]ption\s+)?[(]?(?:[A-H]|[IV]+|\d))\)?)"
    r"(?:\s+is\s+(?:correct|right)|\s*选?项)"
    r"|(?:an?\s+|the\s+)?ratio\s+(?:of\s+)?(?P<ratio>\d.*)|(?:ans\.|(?:ans|sol)\.?\s*[:=])\s*(?P<short>.+)|(?:答|解)\s*:\s*(?P<reply>.+)"
    r"|(?:故|所以|因此|本题)?(?:选项|答案|正确答案|正确选项|(?:应该?)?选择?)(?:是|为)?\s*:?\s*(?P<chinese>.+)"
    r"|(?:it's|(?:it|this|the\s+(?:(?:triangle|quadrilateral|polygon|figure|shape|function|graph|curve|sequence|series"
    r"|statement|system|equation|expression|inverse|number|colou?r|country|city|name|domain|range|roots|zeros)"
    r"(?:\s+of\s+[a-z][a-z\s]*?)?"
    r"|[a-z]{3,}est(?:\s+[a-z]+)?|[a-z]+\s+with\s+the\s+[a-z\s]+?))\s+(?:is|are))\s+(?:an?\s+|the\s+)?(?P<it>.+)",
    re.IGNORECASE | re.DOTALL,
)
# Several options, statements or things: "both A and B", "options A, C", "A and B only".
_SEVERAL = re.compile(
    r"(?:both\s+(?=.*\s(?:and|&)\s)|either\s+(?=.*\sor\s)|all\s+of\s+(?=.*,)|all\s+three\s+(?=.*,))(?P<rest>.+)"
    r"|(?:(?:both|either|all\s+of)\s+)?(?:options?|choices?|statements|answers|points|lines|segments|angles|figures|graphs)\s+"
    r"(?P<named>(?!(?:is|are|was|were|has|have)\b)[(A-Za-z\d].*)"
    r"|(?:(?P<before>[(]?[A-H1-9][).]?(?:(?:\s*[,&]\s*(?:and\s+)?|\s+and\s+)[(]?[A-H1-9][)]?)*)\s+only"
    r"|only\s+(?P<behind>[(]?[A-H1-9].*))",
    re.IGNORECASE | re.DOTALL,
)
_THEREFORE = re.compile(
    r"(?:so|thus|hence|therefore|then|finally|in conclusion|[∴→⇒]|所以|因此)(?![A-Za-z_^{\d])[,:\s]*"
    r"(?P<rest>[^\s_^].*)",
    re.I | re.S,
)
# 2x + 3 = 7 ⇒ x = 2.
_CONCLUSION = re.compile(r"[^⇒]*=[^⇒]*⇒(?:.*⇒)?\s*(?P<rest>[^⇒]*=[^⇒]*)", re.DOTALL)
_APPROXIMATELY = re.compile(
    r"(?:≈|~|∼|(?:about|around|approximately|approx\.?|circa|ca\.|roughly|nearly|exactly|just|equals?(?:\s+to)?|is|=|约为?|大约|等于)"
    r"(?![A-Za-z]))\s*(?P<rest>.+)",
    re.IGNORECASE | re.DOTALL,
)
_MONEY_BEHIND = re.compile(
    r"(?P<rest>[$€£]\s*[\d.,]+|\d[\d.,]*\s*(?:dollars|cents|euros|yuan))\s+"
    r"(?:left(?:\s+over)?|remaining|in\s+(?:change|total|all))",
    re.IGNORECASE,
)
_BEHIND = re.compile(
    r"(?P<rest>.*\S)(?:[\s-]+(?:approximately|approx\.?|in total|altogether|each|old|tall|long|wide|high|deep|apart"
    r"|away|in\s+(?:length|width|height|depth|thickness|diameter|radius|area|volume|perimeter|circumference|size|weight|mass"
    r"|all|value)|only)|左右)"
    r"|(?P<criterion>.*(?:congruence|similarity))\s+(?:postulate|theorem|criterion|rule|condition)"
    r"|(?P<unknown>(?:it\s+)?can(?:not|'t)\s+be\s+determined)\s+(?:from|with|without|based\s+on|using)\s.*",
    re.IGNORECASE | re.DOTALL,
)
_IN_THE_MONTH = re.compile(
    rf"(?:(?:in|on)\s+)?(?:the\s+month\s+of\s+)?(?P<rest>(?:{'|'.join(NAMES_OF_TIMES)})\.?)", re.IGNORECASE
)
_IN_THE_YEAR = re.compile(r"(?:in\s+)?(?:the\s+)?(?:year\s+)?(?P<rest>\d{4}s?)(?:年)?", re.IGNORECASE)
_MEASURE = re.compile(
    rf"(?:an?\s+|the\s+)?{QUANTITY}\s+(?:of\s+)?"
    r"(?P<rest>(?!.*\b(?:and|or|to|from|by|than|in|on|if)\b)(?:-?[\d.$√]|\\(?:frac|sqrt))[^,;=:]*)",
    re.IGNORECASE,
)
# A sentence with one verb and no digit before the verb.
_STATEMENT = re.compile(
    r"(?P<subject>[A-Za-z∠△][A-Za-z∠△'_{}\s-]{0,80}?(?:\s+in\s+\d{4})?)\s+(?:(?:will|can|must|should|would)\s+)?"
    r"(?:be|take|have|need|cost|is|are|was|were|has|have|had|equals?|costs?|weighs?|measures?|takes|took|needs|contains?|holds?"
    r"|gives?|makes?|made|earns?|earned|gets?|got|pays?|paid|spends?|spent|travels?|travell?ed|walks?|walked|runs?|ran|drives?"
    r"|drove|scores?|scored|saves?|saved|uses?|used|lasts?|lasted|sold|bought|eats?|ate|shows?|(?:comes|amounts|adds\s+up|simplifies|evaluates|reduces)\s+to|(?:intersects?|lands?|landed|meets?|met|stops?|stopped|ends?|ended|arrives?|arrived|hits\s+the\s+ground)"
    r"\s+(?:after|at|in))\s+"
    r"(?:equal\s+to\s+|about\s+|approximately\s+|exactly\s+|now\s+|only\s+|at\s+(?=\()"
    rf"|(?:an?\s+)?{QUANTITY}\s+(?:of\s+)?)?"
    rf"(?P<rest>[^A-Za-z]*\d.*|\\(?:frac|sqrt).*|(?:{'|'.join(CARDINALS)})\b.*)",
    re.DOTALL,
)
_LABEL = re.compile(
    r"(?:[A-Z][A-Za-z]?\([^()=]*\)\s*=|(?!not?\b)[A-Za-z][A-Za-z -]{2,40}:)\s*"
    r"(?P<rest>-?[\d.$√].*|[(\[]?\s*\\(?:frac|sqrt|begin).*|(?:[(\[]\s*[-\d√]|[A-Za-z]\s*[=<>≤≥≠∈])[^:]*)",
    re.DOTALL,
)
_CHINESE_STATEMENT = re.compile(
    r"(?!.*[不没无非未])[\u4e00-\u9fffA-Za-z∠△]{0,16}?(?:是|为|等于|有|共)\s*(?P<rest>\d.*)", re.DOTALL
)
_VERB = re.compile(r"\b(?:is|are|was|were|has|have|had|and|or|but|not|than|if)\b", re.IGNORECASE)
_NUMBERS = re.compile(r"[^A-Za-z]+(?:and|or)[^A-Za-z]+")
_NEGATIVE = re.compile(r"\b(?:no|not|none|neither|nor|nobody|nothing|never|if|when|except)\b", re.IGNORECASE)
# It remains constant.
_PRONOUN = re.compile(r"(?:it|they)\s+(?P<rest>[a-z][a-z' -]+)", re.IGNORECASE)
_VERDICT = re.compile(
    r"(?P<rest>yes|no|true|false|correct|incorrect)(?:\s+(?:-\s|\()(?!.*\b(?:yes|no|true|false|(?:in)?correct)\b).+"
    r"|(?:\s*[,.;:(-]+\s*|\s+)(?P<reason>\S.*))",
    re.IGNORECASE | re.DOTALL,
)
_REASON = re.compile(
    r"(?:because|since|as|it|they|he|she|we|you|this|these|those|that|the|there|its|their|both|all|for|by|angle|triangle"
    r"|∠|△|the)(?![A-Za-z])"
    # 3 + 4 = 7
    r"|[-+*/×.^()\s\d]+(?:[=<>≠≤≥][-+*/×.^()\s\d]+)+$",
    re.IGNORECASE,
)
_CHINESE_VERDICT = re.compile(r"(?P<rest>是|不是|对|错|正确|错误|能|不能)(?:的)?[,.;](?:因为|由于).+", re.DOTALL)
_BRACKET_BEHIND = re.compile(r"(?P<rest>.*[^\s(\[])\s*[(\[](?P<inner>[^()\[\]]*)[)\]]", re.DOTALL)
_REMARK = re.compile(
    r"(?:reject|discard|ignor|exclud|approx|about|rounded|round|(?:to the )?nearest "
    r"|(?:correct )?(?:to )?(?:\d|one|two|three|four) ?(?:d\.? ?p|s\.? ?f|dec(?:imals?)?(?![a-z])|sig)"
    r"|since|because|as |where|given|by |using"
    r"|from |see |note|not |after "
    r"|only|answer$|simplified|exact|extraneous|invalid|in simplest|舍|约|保留)"
    r"|.*\b(?:(?:is|are)\s+(?:not\s+valid|invalid|impossible|ignored|excluded)|extraneous|rejected|discarded)|.*舍去",
    re.IGNORECASE,
)
# x = 3 because x > 0; x = 3, reject x = -2.
_REASON_BEHIND = re.compile(
    r"(?P<rest>[^,;]*(?:\d|[A-H]|\}))(?:(?:[,;]|\s-)?\s+(?:because|since)\s.+|\s*[,;]\s*(?:and\s+)?(?:(?:we\s+)?(?:reject|discard|ignor)"
    r"|[A-Za-z]\s*=[^,;=]*\s(?:is|are)\s+(?:not\s+valid|extraneous|rejected|discarded|invalid)).*)",
    re.IGNORECASE | re.DOTALL,
)
# x = 5 (x > 0)
_CONDITION_BEHIND = re.compile(r"(?P<rest>([A-Za-z])\s*=\s*[^()=,;]+)\(\s*\2\s*[<>≤≥≠][^()]*\)")
_ARTICLE = re.compile(
    r"(?:[Tt]he|[Aa]n|a|A(?=\s+(?!(?:and|are|has|was|but|only|or|is)\b)[a-z]))\s+"
    r"(?P<rest>(?:\d+[a-z]{2}\s)?[A-Za-z][A-Za-z\s-]{2,})"
)
# A kind of something: right triangle, odd function, SAS congruence.
_KIND = re.compile(
    r"(?P<which>[a-z][a-z' -]*?)\s(?P<noun>triangle|angle|function|number|integer|line|bar|curve|slice|section|sector"
    r"|slope|correlation|one|colou?r|similarity|congruence|theorem|postulate|criterion|condition|rule|property)s?",
    re.IGNORECASE,
)
# Words before such a noun that are more than a qualifier.
_MORE_THAN_A_KIND = re.compile(
    rf"\b(?:no|not|non|an?|the|and|or|of|is|are|each|both|all|any|{'|'.join(CARDINALS)})\b", re.IGNORECASE
)
_OVER_LETTERS = {"ray": VECTOR, "arc": r"\widehat"}
_NAMED_OBJECT = re.compile(
    r"(?:the\s+)?(?:point|center|centre|vertex|coordinates?)\s+(?:at\s+)?(?P<place>\([^()]*\))"
    r"|(?P<ray>ray|arc)\s+(?P<c>(?-i:[A-Z]{2,3}))"
    r"|(?:(?:line\s+)?segment|point|side|line|plane|quadrilateral|edge|diagonal|vertex|region|graph|figure|image|picture"
    r"|diagram)\s+(?P<rest>(?-i:[A-Z]{1,4})(?:'|\([^()]*\))?|(?-i:[a-zα-ω])'?)"
    r"|(?P<noun>fig(?:\.|ure)?|graph|diagram|picture|image|step|row|column|day|pattern|line|table|box)\s*\(?(?P<number>\d{1,3})\)?",
    re.IGNORECASE,
)
_BOUNDS = {
    sign: re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for sign, pattern in {
        "≥": r"(?:at\s+least|not?\s+(?:less|fewer)\s+than)\s+(\S.*)"
             r"|(\S.{0,60})\s+(?:or|and)\s+(?:more|greater|above|over|older)|([$€£]?\d[\d,.]*%?)\+",
        "≤": r"(?:at\s+most|not?\s+more\s+than|up\s+to)\s+(\S.*)|(\S.{0,60})\s+or\s+(?:less|fewer|below)",
        ">": r"(?:more|greater)\s+than\s+([-$\d].*)",
        "<": r"(?:less|fewer)\s+than\s+([-$\d].*)",
    }.items()
}  # fmt: skip
_BOUND_WORD = re.compile(r"\s(?:or|and|than|least|most|to)\s|\+$", re.IGNORECASE)
_RISES = ("increase", "rise", "gain", "growth", "profit")
CHANGES = frozenset((*_RISES, "decrease", "drop", "loss", "decline", "reduction", "discount"))
_A_CHANGE = f"(?:{'|'.join(sorted(CHANGES))})"
_CHANGE = re.compile(
    rf"(?:the\s+|an?\s+|it\s+)?(?:(?P<change>{_A_CHANGE})(?:s|d|ed)?\s*(?:\b(?:of|by|is|was)\b|[:=])\s*(?P<by>[$€£]?\d.*)"
    rf"|(?P<value>[$€£]?\d(?:.*\S)?)\s+(?P<behind>{_A_CHANGE}))",
    re.IGNORECASE | re.DOTALL,
)
COMPARATIVES = frozenset({
    "more", "less", "fewer", "greater", "smaller", "higher", "lower", "larger", "closer", "farther", "faster", "slower",
    "longer", "shorter", "heavier", "lighter", "older", "younger", "taller", "hotter", "colder", "stronger", "weaker",
})  # fmt: skip
# Phrases with a meaning in symbols.
_PHRASES = {
    re.compile(
        r"(?:[a-z]\s+(?:is|can be)\s+)?(?:the\s+set\s+of\s+)?(?:all|any|every)\s+(?:the\s+)?reals?(?:\s+numbers?)?"
        r"(?:\s+[a-z])?|(?:the\s+)?(?:set\s+of\s+)?real\s+numbers|(?:全体|一切|任意|所有)实数",
        re.IGNORECASE,
    ): "R",
    re.compile(r"(?:there\s+(?:is|are)\s+)?no\s+solutions?(?:\s+exists?)?|(?:the\s+)?empty\s+set", re.IGNORECASE): "∅",
    re.compile(r"(?:a\s+)?half|一半", re.IGNORECASE): "1/2",
    re.compile(r"a\s+quarter", re.IGNORECASE): "1/4",
    re.compile(r"(?:at\s+)?(?:12(?::00)?\s+)?noon", re.IGNORECASE): "12:00 PM",
    re.compile(r"(?:at\s+)?(?:12(?::00)?\s+)?midnight", re.IGNORECASE): "12:00 AM",
}
_ORDINALS = (
    "first", "second", "third", "fourth", "1st", "2nd", "3rd", "4th", "i", "ii", "iii", "iv", "1", "2", "3", "4",
    "一", "二", "三", "四",
)  # fmt: skip
_QUADRANT = re.compile(
    r"(?:in\s+)?(?:the\s+)?(?:(?:quadrant\s+|(?-i:Q)(?=[IV]))(?P<behind>iv|i{1,3}|[1-4])"
    r"|(?P<before>first|second|third|fourth|1st|2nd|3rd|4th|iv|i{1,3})"
    r"\s+quadrant|第(?P<chinese>[一二三四])象限)",
    re.IGNORECASE,
)
_SET_BUILDER = re.compile(r"\\?\{\s*[A-Za-z]\s*(?:∈[^|:{}]*)?[|:](?P<rest>.+?)\s*\\?\}", re.DOTALL)


def _statement(text: str) -> str | None:
    match = _STATEMENT.fullmatch(text)
    if match is None or _NEGATIVE.search(match["subject"]):
        return None
    rest = match["rest"]
    return rest if _NUMBERS.fullmatch(rest) or not _VERB.search(rest) else None


def _phrase(text: str) -> str | None:
    return next((meaning for phrase, meaning in _PHRASES.items() if phrase.fullmatch(text)), None)


def _bound(text: str) -> str | None:
    """Return ≥ 5 for at least 5 and 5 or more; None for other text."""
    if not _BOUND_WORD.search(text):
        return None
    matches = ((sign, pattern.fullmatch(text)) for sign, pattern in _BOUNDS.items())
    return next((f"{sign} {next(filter(None, match.groups()))}" for sign, match in matches if match), None)


def change_of(text: str) -> tuple[str, str] | None:
    """Split an increase of 20%, or 20% increase, into the value and the direction; None for other text."""
    match = _CHANGE.fullmatch(text)
    if match is None:
        return None
    is_rise = (match["change"] or match["behind"]).lower() in _RISES
    return match["by"] or match["value"], "rise" if is_rise else "fall"


def kind_of(text: str) -> tuple[str, str] | None:
    """Split `right triangle`, `odd function` or `SAS congruence` into its qualifier and noun; None for other text."""
    match = _KIND.fullmatch(text)
    if match is None or _MORE_THAN_A_KIND.search(match["which"]):
        return None
    return match["which"], match["noun"].lower()


def _verdict(text: str) -> str | None:
    match = _VERDICT.fullmatch(text)
    return match["rest"] if match and (match["reason"] is None or _REASON.match(match["reason"])) else None


def unit_in_brackets(text: str) -> str | None:
    """Return 5 cm for 5 (cm) and 5 cm (centimeters); None if no unit in brackets follows a number."""
    match = _BRACKET_BEHIND.fullmatch(text) if text.endswith((")", "]")) else None
    if match is None:
        return None
    rest, inner = match["rest"], match["inner"].strip()
    if (unit := unit_of(inner)) and unit == unit_of(rest.rpartition(" ")[2]):
        return rest
    words = re.split(r"[\^/ ]", inner)
    # A letter right after a number is a factor.
    is_unit = unit_of(words[-1] if words[0] in POWERS else words[0]) and (
        len(inner) > 1 or (text[len(rest)] == " " and inner not in "ABCDEFGH")
    )
    # 35 (in thousands) has no unit.
    is_behind_value = rest[-1] in "0123456789})π" and not inner.startswith("in ")
    return f"{rest} {inner}" if is_unit and is_behind_value else None


def _abbreviated(text: str) -> str | None:
    """Return HL for hypotenuse-leg (HL); None for other text."""
    match = _BRACKET_BEHIND.fullmatch(text)
    initials = match and "".join(re.findall(r"(?<![A-Za-z])[a-z]", match["rest"].lower()))
    return match["inner"] if match and initials == match["inner"].lower() else None


def _remark(text: str) -> str | None:
    match = _BRACKET_BEHIND.fullmatch(text)
    if match is None:
        return None
    rest, inner = match["rest"], match["inner"].strip()
    # The number is repeated, as in seven (7) and 7 (seven).
    is_again = number_in_words(rest) == inner or number_in_words(inner) == rest
    explains = (inner.startswith("the ") and (rest[0].isdigit() or len(rest) == 1)) or (
        inner.startswith(("a ", "an ", "in ", "for ", "with ")) and rest[0].isdigit() and not CHANGES & {*inner.split()}
    )
    return rest if is_again or explains or _REMARK.match(inner) else None


def _object(text: str) -> str | None:
    match = _NAMED_OBJECT.fullmatch(text)
    if match is None:
        return None
    if match["ray"]:
        return f"{_OVER_LETTERS[match['ray'].lower()]}{{{match['c']}}}"
    if match["noun"]:
        return f"{match['number']}{ORDINAL} {re.sub('^fig.*', 'figure', match['noun'].lower())}"
    return match["place"] or match["rest"]


def _quadrant(text: str) -> str | None:
    match = _QUADRANT.fullmatch(text)
    if match is None:
        return None
    ordinal = (match["behind"] or match["before"] or match["chinese"]).lower()
    return ("I", "II", "III", "IV")[_ORDINALS.index(ordinal) % 4]


# A pattern returns its single group, a function the text that it reads.
_RULES: Sequence[re.Pattern[str] | Callable[[str], str | None]] = (
    _LEAD, _SEVERAL, _THEREFORE, _CONCLUSION, signed_number_in_words, _APPROXIMATELY, _MONEY_BEHIND, _BEHIND, _bound,
    _IN_THE_MONTH, _IN_THE_YEAR, _SET_BUILDER, _quadrant, _object, ordinal_in_words, _phrase, _ARTICLE, _verdict,
    _CHINESE_VERDICT, _REASON_BEHIND, _CONDITION_BEHIND, _LABEL, _statement, _CHINESE_STATEMENT, _MEASURE, _abbreviated,
    _remark, number_in_words, number_in_chinese, _PRONOUN,
)  # fmt: skip


def without_wording(text: str) -> str | None:
    """Return the part of a text with the same meaning, None if no rule applies."""
    for rule in _RULES:
        if isinstance(rule, re.Pattern):
            match = rule.fullmatch(text)
            part = match and next(filter(None, match.groups()))
        else:
            part = rule(text)
        if part not in (None, text):
            return part
    return None
