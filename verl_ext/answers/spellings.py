r"""Normalize alternative spellings in plain text: thousands, money, angles, units, ranges.

`one_spelling` applies a table of rules to an answer without LaTeX decoration, and `before_latex` applies one to an
answer that still has it. A rule runs only if the text contains one of its hints, so most answers cost no search.
"""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

from verl_ext.answers.number_words import chinese_numeral
from verl_ext.answers.units import unit_of

_Match = re.Match[str]


class _Rule(NamedTuple):
    hints: tuple[str, ...]
    pattern: re.Pattern[str]
    replacement: str | Callable[[_Match], str]


# Braces after these are an argument. After other braces they may be another argument, unless that command is complete.
_TAKES_ARGUMENT = re.compile(
    r"(?:\\[A-Za-z]+\s*(?:\[[^\[\]]*\])?|[_^]|\\(?:[dtc]?frac|binom|begin)\s*(?:\{[^{}]*\}|\d))$"
)
_COMPLETE = re.compile(r"\\(?:sqrt\s*(?:\[[^\[\]]*\])?|frac\s*\{[^{}]*\}\s*)\{[^{}]*\}$")
# Currency codes and signs before an amount, with the unit to put after it.
_CODES = {"US$": "USD", "RMB": "CNY", "Rs": "INR", "Re": "INR", "A$": "AUD", "AU$": "AUD", "C$": "CAD", "CA$": "CAD",
          "HK$": "HKD", "S$": "SGD", "NZ$": "NZD"}  # fmt: skip
_CURRENCIES = ("USD", "EUR", "GBP", "CNY", "RMB", "JPY", "INR", "KRW", "RUB", "CHF", "CAD", "AUD", "HKD", "SGD", "NZD")
MAGNITUDES = {"k": "thousand", "m": "million", "b": "billion"}
_MAGNITUDE = r"(?:\s+(?:thousand|million|billion|trillion)(?![a-z]))?"


def _shown_words(match: _Match) -> str:
    """Drop braces around words that are no argument, and around letters that may be a unit."""
    before = match.string[: match.start()].rstrip()[-80:]
    is_argument = _TAKES_ARGUMENT.search(before) or (before[-1:] == "}" and not _COMPLETE.search(before))
    is_letter = len(match[1]) == 1 and not before[-1:].isdecimal()
    return match[0] if is_argument or is_letter else f" {match[1]} "


def _in_degrees(match: _Match) -> str:
    """Convert degrees, minutes and seconds of an angle to a mixed number of degrees."""
    minutes, seconds = Fraction(match["minutes"]), Fraction(match["seconds"] or 0)
    if minutes >= 60 or seconds >= 60:
        return match[0]
    part = minutes / 60 + seconds / 3600
    return rf"{match['degrees']}\frac{{{part.numerator}}}{{{part.denominator}}}°" if part else f"{match['degrees']}°"


def _money_before(match: _Match) -> str:
    code = match["code"].rstrip(".")
    return f"{match['amount']} {_CODES.get(code, code)}"


def _chosen(match: _Match) -> str:
    n, k = int(match["n"]), int(match["k"])
    if k > n:
        return match[0]
    return rf"\frac{{{n}!}}{{{n - k}!}}" if match["kind"] == "P" else rf"\binom{{{n}}}{{{k}}}"


def _power_of_unit(match: _Match) -> str:
    # The plural squares does not mean square seconds.
    return f"{match[1]} {match[2]}" if unit_of(match[2]) and match[2] != "s" else match[0]


def _hyphenated_unit(match: _Match) -> str:
    """Separate a hyphenated unit from its number: 5-km, 5 kilo-ohms, 5 newton-meters."""
    first, last = match[1] or "", match[2]
    if unit_of(first + last):
        return f" {first}{last}"
    return f" {first} {last}" if unit_of(first) and unit_of(last) else match[0]


def _next_value(match: _Match) -> str:
    return match[0] if unit_of(match.string[match.end()]) else f"{match[1]}, "


def _without(sign: str) -> Callable[[_Match], str]:
    return lambda match: match[0].replace(sign, "")


# A tilde is a space in LaTeX. Between numbers it means a range, unless it can only separate thousands.
_RANGE_BY_TILDE = r"(\d\s*(?:\\?%|°[CF]?|[A-Za-z]{1,3}(?:\^?[23])?)?)\s*[~∼]\s*(?=-?\d)"
_BEFORE_LATEX: Sequence[_Rule] = (
    # Bold in Markdown; after a number or name, two asterisks mean a power.
    _Rule(("**",), re.compile(r"(?<![\w)\]}*])\s*\*\*(?![\s*])([^*]+)\*\*(?![\w(*])"), r" \1 "),
    _Rule(("~",), re.compile(r"(?<![\d~])\d{1,3}(?:~0\d\d|~\d{3}(?=~\d{3}))(?:~\d{3})*(?!~?\d)"), _without("~")),
    _Rule(("~",), re.compile(r"\s*~\s*(?=△|\\triangle)"), "∼"),
    _Rule(("~",), re.compile(_RANGE_BY_TILDE), r"\1 to "),
    _Rule(("{",), re.compile(r"\{\s*\\[,;:! ]\s*\}"), " "),
    _Rule(("frown",), re.compile(r"\\(?:overset|stackrel)\s*\{\s*\\frown\s*\}"), r"\\widehat"),
    # Words that run into the command before them.
    _Rule(("quad",), re.compile(r"\\q?quad(?=[A-Za-z])(?!quad)"), " "),
)
_RULES: Sequence[_Rule] = (
    _Rule(
        ("['",),
        re.compile(r"^\[\s*'[^'\[\]]*'(?:\s*,\s*'[^'\[\]]*')*\s*\]$"),
        lambda match: match[0].strip("[]").replace("'", ""),
    ),
    # Remains of {\rm cm}.
    _Rule(("{",), re.compile(r"(?<!\\)\{\s*([A-Za-z](?:[A-Za-z\s./^*]*[A-Za-z.])?(?:\^?[23])?)\s*\}"), _shown_words),
    # Ranges
    _Rule(("∼", "~"), re.compile(_RANGE_BY_TILDE), r"\1 to "),
    _Rule(("--",), re.compile(r"(?<=[\d%°])\s*-{2,3}\s*(?=[\d$€£¥])|(?<=[A-Za-z]{2})-{2,3}(?=[A-Za-z]{2})"), "-"),
    # Two or more full stops separate thousands; a single one is a decimal point.
    _Rule(
        (".",),
        re.compile(r"(?<![\d.])(\d{1,3}(?:\.\d{3}){2,})(?:,(\d{1,2})(?![\d.,)\]]))?(?![\d.])"),
        lambda match: match[1].replace(".", "") + (f".{match[2]}" if match[2] else ""),
    ),
    # No number of a list starts with a zero: 0,05 and 3,05 have decimal commas.
    _Rule(
        (",0",),
        re.compile(r"^([^,()\[\]{}]*)(?<![\d.])(\d+),(0\d(?:\d{2,})?|(?<=\b0,)0\d{2})(?![\d.])(?=[^,()\[\]{}]*,?$)"),
        r"\1\2.\3",
    ),
    _Rule(("'",), re.compile(r"(?<![\d'])\d{1,3}(?:'\d{3})+(?![\d'])"), _without("'")),
    _Rule(("到", "至"), re.compile(r"^从?(-?\d[\d.%°]*)\s*[到至]\s*(?=-?\d)"), r"\1 to "),
    # Money
    _Rule(
        ("dollar",),
        re.compile(r"^(\d[\d,]*) dollars? and (\d\d?) cents?$"),
        lambda match: f"${match[1]}.{match[2]:0>2}",
    ),
    _Rule(
        ("USD", "dollars"),
        re.compile(r"^(?:USD\s*)?(-?\$\s*\d[\d,.]*(?:\s+[mb]illion)?)(?:\s*(?:USD|dollars))?$"),
        r"\1",
    ),
    _Rule(
        ("$", "Rs", "Re", *_CURRENCIES),
        re.compile(
            rf"(?<![A-Za-z])(?P<code>(?:US|AU?|CA?|HK|S|NZ)\$|R[es]\.?|{'|'.join(_CURRENCIES)})\s*(?P<amount>-?\d[\d,]*(?:\.\d+)?{_MAGNITUDE})(?!\s*[A-Z$])"
        ),
        _money_before,
    ),
    _Rule(("$", "€", "£", "₹", "₩", "₽"), re.compile(r"^(-?\d[\d,]*(?:\.\d+(?:,\d\d)?)?)\s*([$€£₹₩₽])$"), r"\2\1"),
    _Rule(
        ("$", "€", "£", "¥", "₹"),
        re.compile(r"^(-?[$€£¥₹]\s*\d[\d,]*(?:\.\d+)?)\s*([kKmMbB]|[mb]n|mln|mil)$"),
        lambda match: f"{match[1]} {MAGNITUDES[match[2][0].lower()]}",
    ),
    _Rule((" bn", " mln"), re.compile(r"(?<=\d) (bn|mln)(?![A-Za-z])"), lambda match: f" {MAGNITUDES[match[1][0]]}"),
    # Lakhs and crores.
    _Rule(("₹", "Rs", "INR", "upee"), re.compile(r"(?<![\d,.])\d{1,2}(?:,\d\d)+,\d{3}(?![\d,])"), _without(",")),
    _Rule(("$-", "€-", "£-", "₹-"), re.compile(r"^([$€£₹])-\s*(?=\d)"), r"-\1"),
    # 5C2, ^5C_2, _5C_2 and 5 choose 2.
    _Rule(
        ("C", "P", "choose"),
        re.compile(
            r"(?<![A-Za-z0-9_.{}^])(?:\{\}\s*)?[_^]?\s*\{?(?P<n>\d{1,3})\}?\s*(?P<kind>[CP]|choose)\s*_?\s*\{?(?P<k>\d{1,3})\}?"
            r"(?![\w.])"
        ),
        _chosen,
    ),
    _Rule((" over ",), re.compile(r"^(-?\d+) over (\d+)$"), r"\1/\2"),
    _Rule(("factorial",), re.compile(r"(?<=\d)\s*factorial(?![A-Za-z])"), "!"),
    _Rule(("^",), re.compile(r"(?<=[a-z])\.(?=\s*\^)"), ""),
    _Rule(("^",), re.compile(r"(?<=\d)\s*[xX]\s*(?=10\s*\^)"), "×"),
    _Rule(("root of",), re.compile(r"(?:the )?square root of\s*", re.I), "√"),
    _Rule(("half a", "Half a"), re.compile(r"^half an? (?=[a-z])", re.I), "1/2 "),
    _Rule(("repeating", "recurring"), re.compile(r"(?<=\d\.)(\d)\s*(?:repeating|recurring)$"), r"\\overline{\1}"),
    _Rule(("plus or minus", "+/-"), re.compile(r"\bplus or minus\s*|\+/-"), "±"),
    # The base of a numeral.
    _Rule((")_", ") _"), re.compile(r"^\(([0-9A-F]+)\)\s*(?=_)"), r"\1"),
    _Rule(("#", "o. ", "umber "), re.compile(r"^(?:#+|[Nn]o\.|[Nn]umber)\s*(?=\d+$)"), ""),
    # Derivatives
    _Rule(
        ("{d", "{ d", "/d"),
        re.compile(
            r"\\frac\s*\{\s*d\s*([a-z])\s*\}\s*\{\s*d\s*[a-z]\s*\}(?!\s*[|\\])"
            r"|(?<![A-Za-z\d])d([a-z])\s*/\s*d[a-z](?=\s*(?:=|$))"
        ),
        lambda match: f"{match[1] or match[2]}'",
    ),
    # Degrees
    _Rule(("^",), re.compile(r"(?<=[\d})])\s*\^\s*(?:o(?![A-Za-z])|\{\s*(?:o|°)\s*\})"), "°"),
    _Rule(
        ("deg", "Deg", "°"),
        re.compile(r"(?:°|\bdeg(?:rees?)?)\s*(C(?:elsius)?|F(?:ahrenheit)?)(?![A-Za-z])", re.I),
        lambda match: f"°{match[1][0].upper()}",
    ),
    _Rule(("egree",), re.compile(r"(?<=\d)\s*degrees?(?![A-Za-z\s]*\d)(?![A-Za-z])", re.I), "°"),
    _Rule(("∘", "°"), re.compile(r"\^\s*(?:[∘°]|\{\s*[∘°]\s*\})|∘"), "°"),
    _Rule(("°",), re.compile(r"°\s*([CFK])(?![A-Za-z])"), r"°\1"),
    # Primes are an exponent in LaTeX.
    _Rule(
        ("'",),
        re.compile(r"\^\s*(?:\{\s*('(?:\s*')*)\s*\}|('(?:\s*')*))"),
        lambda match: "".join((match[1] or match[2]).split()),
    ),
    _Rule(
        ("'", "分", "minute"),
        re.compile(
            r"(?<![\d.])(?P<degrees>\d+)\s*(?:°|度|degrees?\s)\s*(?:and\s+)?(?P<minutes>\d{1,2}(?:\.\d+)?)\s*(?:'(?!')|分"
            r"|minutes?(?![A-Za-z]))(?:\s*(?:and\s+)?(?P<seconds>\d{1,2}(?:\.\d+)?)\s*(?:''|\"|秒|seconds?(?![A-Za-z])))?"
        ),
        _in_degrees,
    ),
    _Rule(("∠",), re.compile(r"(?<![A-Za-z])m\s*(?=∠)"), ""),
    _Rule(("° a", "度角"), re.compile(r"(?<=°) angles?$|(?<=度)角$"), ""),
    _Rule(("below zero", "零下"), re.compile(r"^(?:(\d[\d.]*\s*(?:°[CF]?)?) below zero|零下\s*(\d.*))$"), r"-\1\2"),
    # Units
    _Rule(("'",), re.compile(r"(?<![\d°])(\d+)\s*'\s*(\d+)\s*(?:''|\")"), r"\1 ft \2 in"),
    _Rule(("''", '"'), re.compile(r"^(\d+(?:\.\d+)?)\s*(?:''|\")$"), r"\1 in"),
    _Rule(("'",), re.compile(r"^(\d+(?:\.\d+)?)\s*'$"), r"\1 ft"),
    _Rule(("s^", "s ^"), re.compile(r"(?<=\d)\s*(k?m)s\s*\^\s*\{?\s*-\s*([12])\s*\}?"), r" \1/s^\2"),
    _Rule(("比",), re.compile(r"(?<=\d)\s*比\s*(?=\d)"), ":"),
    _Rule(("q.", "Q.", "u.", "U.", "в.", "б."), re.compile(r"\b(sq|cu|кв|куб)\.\s*", re.I), r"\1 "),
    _Rule(("sq", "cubic"), re.compile(r"(?<![A-Za-z])(square|cubic|sq)([a-z]+)"), _power_of_unit),
    _Rule(("cc",), re.compile(r"(?:(?<=\d)\s*|(?<=/)\s?)cc(?![A-Za-z])"), " cm^3"),
    _Rule(("-",), re.compile(r"(?<=\d)(?:\s?-| ([a-z]+)-)([a-z]{2,})$"), _hyphenated_unit),
    _Rule((" a ", " an "), re.compile(r"(?<=[a-z]) an? (?=(?:second|minute|hour|day|week|month|year)$)"), " per "),
    _Rule(("+ ",), re.compile(r"^(\d[\d,.]*)\+ ([a-z]+)$"), r"\1 \2 or more"),
    _Rule(("Ω",), re.compile(r"(?<=[\d }])([kMmμ])\s+(?=Ω)"), r"\1"),
    _Rule(("μ",), re.compile(r"μ\s+(?=[ACFHJLNTVWgms])"), "μ"),
    _Rule(
        ("to the ", "due "),
        re.compile(r"(?:^|,? )(?:to the|due) (?=(?:left|right|north|south|east|west)(?![a-z]))"),
        " ",
    ),
    # J/mol·K and J/g°C: everything after the slash is in the denominator.
    _Rule(("/",), re.compile(r"/\s*(k?g|mol)\s*[* ]?\s*(°C|K)(?![\w)])"), r"/(\1*\2)"),
    _Rule(
        ("h", "小时", "分", "米", "元"),
        re.compile(r"(?<=\d)\s*(h(?=\s*\d+\s*m(?:in)?(?![a-z]))|小时|分钟?|米|元)\s*(?=\d)"),
        r" \1 ",
    ),
    _Rule(("h",), re.compile(r"^(\d+\s*h(?:rs?)?\s+\d+)\s*m$"), r"\1 min"),
    _Rule(("小时",), re.compile(r"(小时\s*\d+\s*)分$"), r"\1分钟"),
    # A letter after a number is a unit if the quantity is measured in it.
    _Rule(
        ("=",),
        re.compile(
            r"^(?:[tT]\s*=\s*\d[\d.]*(?=[sh]$)|T\s*=\s*\d[\d.]*(?=K$)|[qQ]\s*=\s*-?\d[\d.]*(?=C$)"
            r"|B\s*=\s*\d[\d.]*(?=T$))"
        ),
        r"\g<0> ",
    ),
    # Molarity: no one counts in hundredths of a million.
    _Rule((" M",), re.compile(r"((?<![\d.])0?\.\d+|×\s*10\s*\^\s*\{?\s*-\s*\d+\s*\}?)\s+M$"), r"\1 molar"),
    _Rule((" unit ",), re.compile(r"(?<=\d) unit (?=(?:cube|square|triangle)s?$)"), " "),
    _Rule(("°",), re.compile(r"^([NS])\s*(\d+(?:\.\d+)?°)\s*([EW])$"), r"\1 \2 \3"),
    _Rule(("er cent",), re.compile(r"\bper\s+cent\b", re.I), "percent"),
    _Rule((" B",), re.compile(r"^(\d{1,5})\s+B\.?\s?C(?:\.?\s?E)?\.?$"), r"\1 BCE"),
    _Rule(("fl",), re.compile(r"(?<=\d)\s*fl\.?\s*oz(?![a-z])\.?"), " floz"),
    _Rule(("mm Hg",), re.compile(r"(?<=\d)\s*mm Hg(?![a-z])"), " mmHg"),
    _Rule((" sterling",), re.compile(r"\bpounds?\s+sterling\b", re.I), "GBP"),
    _Rule(
        ("百分之",),
        re.compile("百分之([零一二三四五六七八九十百]+|[0-9.]+)"),
        lambda match: f"{chinese_numeral(match[1])}%",
    ),
    _Rule(("根号",), re.compile(r"根号\s*(?:下\s*)?"), "√"),
    # Objects
    _Rule(("iangle ", "三角形"), re.compile(r"(?:\b[Tt]riangle |三角形)(?=[A-Z]{3}(?![A-Za-z]))"), "△"),
    _Rule(
        ("ngle ", "角"), re.compile(r"\b[Aa]ngle (?=(?:[A-Z]{1,3}|[a-z])(?![A-Za-z])|[\dα-ω])|^角(?=[A-Z]{1,3}$)"), "∠"
    ),
    _Rule(("y ",), re.compile(r"^[Bb]y (?=[A-Z]{2,3}$)"), ""),
    _Rule(("ircle ",), re.compile(r"\b[Cc]ircle (?=[A-Z]$)"), "⊙"),
    _Rule(("第",), re.compile(r"^第\s*(\d+)\s*[个名次天行列步]?$"), r"\1th"),
    _Rule(("<",), re.compile(r"^<([^<>=]+)>$"), r"(\1)"),
    _Rule(("Δ",), re.compile(r"Δ\s*(?=\{?[A-Z]{3}(?![A-Za-z]))"), "△"),
    _Rule(("//", "||"), re.compile(r"(?<=[A-Za-z])\s*(?://|\|\|)\s*(?=[A-Za-z])"), "∥"),
    _Rule(
        ("或", "和", "与", "及", "且"),
        re.compile(r"(?<=[\dA-Za-z)}°%\u4e00-\u9fff])\s*(或者?|[和与及且])\s*(?=[-\dA-Za-z(\\√])"),
        lambda match: " or " if match[1][0] == "或" else " and ",
    ),
    _Rule((" & ",), re.compile(r"(?<=[\w)}]) & (?=[-\w(\\])(?!.*\\end)"), " and "),
    _Rule(
        ("except", "other than", "setminus"),
        re.compile(
            r"^(?:all real numbers,? (?:except|other than) (?:for )?(?:x = )?|R\s*\\setminus\s*\\\{)"
            r"(-?\d[\d/.]*)(?:\\\})?$",
            re.I,
        ),
        r"x≠\1",
    ),
    _Rule(("✓", "✔"), re.compile(r"(?<=\w)\s*[✓✔]$"), ""),
    # Values side by side, after \quad has become a space.
    _Rule(("=",), re.compile(r"(=[^=,;]*[\d})])\s+(?=[A-Za-z](?:_\w+)?\s*=)"), _next_value),
    _Rule(
        (" so ", " thus ", " hence ", " therefore "),
        re.compile(r"(?<==)([^=]*?),?\s+(?:so|thus|hence|therefore)\s+(?=\S[^=]*=[^=]*$)"),
        r"\1⇒",
    ),
    # Statements (1)(3) and options (A)(B); a product would have been evaluated.
    _Rule(
        (")(", ") ("), re.compile(r"^(?:\([1-9A-H]\)\s*){2,}$"), lambda match: ", ".join(re.findall(r"\w", match[0]))
    ),
    _Rule(("ption ",), re.compile(r"(?<=[,&d] )[Oo]ption (?=\(?[A-H]\b)"), ""),
    # The letter of an option inside a chain of equations.
    _Rule(("= (",), re.compile(r"^[^(]*=\s*(\([A-E]\)) (?=\S[^=]*$)"), r"\1 "),
    # ]0, 1[ is the French way to write (0, 1).
    _Rule(("]",), re.compile(r"(^\s*|[∪=∈]\s*)\](?=[^\[\]]*,)"), r"\1("),
    _Rule(("[",), re.compile(r"(,[^\[\],]*)\[(?=\s*(?:$|∪))"), r"\1)"),
)


def before_latex(text: str) -> str:
    """Apply the rules that must precede the removal of LaTeX decoration."""
    return _applied(_BEFORE_LATEX, text)


def one_spelling(text: str) -> str:
    """Apply the rules for text without LaTeX decoration."""
    return _applied(_RULES, text)


def _applied(rules: Sequence[_Rule], text: str) -> str:
    for hints, pattern, replacement in rules:
        # This hot loop is faster than any().
        for hint in hints:
            if hint in text:
                text = pattern.sub(replacement, text)
                break
    return text
