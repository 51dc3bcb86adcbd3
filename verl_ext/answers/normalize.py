r"""Normalize Unicode and LaTeX spellings before an answer is parsed.

`normalize` drops LaTeX decoration (`\left`, `\text{...}`, `$`, thin spaces), converts symbols to single characters
(`\leq` to ≤, `^\circ` to °) and digits and brackets to ASCII. It keeps structure: `\frac`, `\sqrt`, braces, powers.
`verl_ext.answers.spellings` normalizes plain text.
"""

import re
import unicodedata
from collections.abc import Callable

from verl_ext.answers.spellings import before_latex, one_spelling
from verl_ext.answers.tokens import VECTOR
from verl_ext.answers.units import unit_of

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SUBSCRIPT_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_VULGAR = re.compile("[¼-¾⅐-⅞]")
# Circled numbers of statements; an answer may name several.
_CIRCLED = re.compile("[①-⑳]{2,}")
_CIRCLED_LABEL = re.compile(r"[①-⑳](?=\s*[-\d\\√$(A-Za-z])")
_INVISIBLE = re.compile("[\u200b-\u200f\u2060\ufeff\u00ad]")
# NFKC would turn º and ˚ into letters or accents.
_BEFORE = str.maketrans({"º": "°", "˚": "°", "◦": "°"})
_AFTER = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "⁄": "/", "∕": "/", "÷": "/", "✕": "×", "·": "*", "⋅": "*",
        "∙": "*", "•": "*", "∗": "*", "∶": ":", "′": "'", "’": "'", "‘": "'", "“": '"', "”": '"', "″": '"', "⩽": "≤",
        "⩾": "≥", "≦": "≤", "≧": "≥", "≃": "≈", "≒": "≈", "≅": "=", "≌": "=", "∣": "|", "，": ",", "、": ",", "。": ".",
        "；": ";", "¢": " cent ", "∑": r"\sum ", "∏": r"\prod ",
        "π": "π", "Π": "Π", "µ": "μ", "½": "1/2", "【": "[", "】": "]", "￥": "¥", "ϕ": "φ", "ε": "ε",
        "⟶": "→", "➔": "→", "⟹": "⇒", "⟨": "(", "⟩": ")", "〜": "~", "～": "~", "∛": r"\sqrt[3]", "⟂": "⊥",
        "∧": " and ", "∨": " or ",
    }
)  # fmt: skip
_SYMBOLS = {
    "leq": "≤", "le": "≤", "leqslant": "≤", "geq": "≥", "ge": "≥", "geqslant": "≥", "neq": "≠", "ne": "≠", "lt": "<",
    "gt": ">", "approx": "≈", "approxeq": "≈", "simeq": "≈", "thickapprox": "≈", "cong": "=", "times": "×",
    "cdot": "*", "ast": "*", "div": "/", "pm": "±", "mp": "∓",
    "infty": "∞", "cup": "∪", "cap": "∩", "in": "∈", "emptyset": "∅", "varnothing": "∅", "degree": "°",
    "textdegree": "°", "deg": "°", "circ": "∘", "ohm": "Ω", "ell": "l", "langle": "(", "rangle": ")", "bullet": "*",
    "land": " and ", "lor": " or ", "wedge": " and ", "vee": " or ", "neg": "¬", "lnot": "¬", "because": " because ",
    "therefore": "", "measuredangle": "∠", "sphericalangle": "∠", "odot": "⊙",
    "angle": "∠", "triangle": "△", "colon": ":", "mid": "|", "vert": "|", "lvert": "|", "rvert": "|", "percent": "%",
    "prime": "'", "lbrace": r"\{", "rbrace": r"\}", "lbrack": "[", "rbrack": "]", "ldots": "…", "dots": "…",
    "cdots": "…", "to": "→", "rightarrow": "→", "parallel": "∥", "cdotp": "*", "perp": "⊥", "sim": "∼", "dollar": "$",
    "pi": "π", "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "varepsilon": "ε", "theta": "θ",
    "vartheta": "θ", "lambda": "λ", "mu": "μ", "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "φ", "varphi": "φ",
    "omega": "ω", "Omega": "Ω", "Delta": "Δ", "Gamma": "Γ", "Theta": "Θ", "Phi": "Φ", "eta": "η", "xi": "ξ",
    "zeta": "ζ", "nu": "ν", "chi": "χ", "psi": "ψ", "kappa": "κ",
    "imath": "i", "jmath": "j",
    "checkmark": "✓", "euro": "€", "pounds": "£", "yen": "¥", "textdollar": "$",
    "quad": " ", "qquad": " ", "enspace": " ",
    "displaystyle": "", "textstyle": "", "limits": "", "rm": "", "bf": "", "it": "",
    "mathrm": "", "text": "", "mathstrut": "",
    "large": "", "Large": "", "LARGE": "", "huge": "", "Huge": "", "normalsize": "", "small": "", "tiny": "",
    "thinspace": "", "dfrac": r"\frac", "tfrac": r"\frac", "cfrac": r"\frac", "nicefrac": r"\frac", "sfrac": r"\frac",
    "flatfrac": r"\frac", "xfrac": r"\frac", "dbinom": r"\binom",
    "tbinom": r"\binom", "overarc": r"\widehat", "overparen": r"\widehat", "wideparen": r"\widehat", "vec": VECTOR,
    "overrightarrow": VECTOR, "overleftrightarrow": "",
    "longrightarrow": "→", "Rightarrow": "⇒", "implies": "⇒", "Longrightarrow": "⇒",
}  # fmt: skip
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_WRAPPER = re.compile(
    r"\\(?:(?:text|math)(?:bf|it|rm|sf|tt|up|sc|sl|md|normal|bb|cal|scr|frak)?|boldsymbol|bm|mbox|hbox|emph|operatorname"
    r"|underline|boxed|fbox|cancel|bcancel|xcancel|ensuremath|displaystyle|mathop|ce|num|unit|si)\*?\s*"
    r"\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"
)
# Commands whose argument is invisible.
_UNSEEN = re.compile(r"\\(?:(?:text)?color(?:box)?|[hv]?phantom|[hv]space\*?|label|tag)\s*(?:\[[^\[\]]*\])?\{[^{}]*\}")
_INFIX = re.compile(r"\{((?:[^{}]|\{[^{}]*\})*?)\\(over|choose)(?![A-Za-z])((?:[^{}]|\{[^{}]*\})*)\}")
# A system of equations, one per row.
_CASES = re.compile(
    r"(?:\\left\s*)?\\?\{?\s*\\begin\{(cases|aligned|align\*?|gathered)\}(.*?)\\end\{\1\}(?:\s*\\right\s*\.)?",
    re.DOTALL,
)
# Condition of a case in a function defined by cases. In a system of equations, & precedes a relation sign instead.
_CONDITION = re.compile(
    r"(?:,\s*)?&\s*(?![=<>≤≥\s]|\\(?:[lg]eq?|[lg]t|approx)(?![A-Za-z]))(?:\\(?:text|mbox|textrm|mathrm)\s*"
    r"\{\s*(?:,\s*)?(?:if|for|when)\s*\}|(?:if|for|when)\b)?"
)
_IS_INFIX = re.compile(r"\\(?:over|choose)(?![A-Za-z])")
_SEGMENT = re.compile(r"\\overline\s*\{\s*([A-Z]{2})\s*\}")
# Repeating decimals: the repeating digits are in brackets, under a bar or under dots, or an ellipsis follows them. The
# tokenizer reads only the bar.
_BRACKETED_DIGITS = re.compile(r"(?<![\d.])(\d*\.\d*)\((\d+)\)(?!\s*[\dA-Za-z(^])")
_BARRED_DIGITS = re.compile(r"(?:\d\u0305)+")
_DOTTED_DIGITS = re.compile(
    r"(?<=[.\d])\\dot\s*(?:\{(\d)\}|(\d))(?:(\d*)\\dot\s*(?:\{(\d)\}|(\d)))?|(?<=[.\d])\\(?:bar|overline)\s*\{?(\d+)\}?"
)
_DIGITS_AND_SO_ON = re.compile(
    r"(?<![\d.])(\d{1,20}\.)(\d{0,8}?)(\d{1,6}?)(\3+)\s*(?:\.{2,}|…|\\(?:l|c)?dots(?![A-Za-z]))"
)
_MORE_OF_A_LIST = re.compile(r"(?<=,)\s*(?:\.{2,}|…)")
# A formula between dollar signs, but not the amounts in "$5 and $6".
_FORMULA = re.compile(r"\$([^$]+)\$(?!\s*\d)")
# A fraction of units, such as J/(mol K).
_FRACTION_OF_UNITS = re.compile(
    r"(?<=[\d})π])\s*\\frac\s*\{([A-Za-zμΩ*^\d{}\s-]+?)\}\s*\{((?:[A-Za-zμΩ*\s]|\^\s*(?:-?\d|\{-?\d\}))+)\}"
)
_UNIT_WORDS = re.compile("[A-Za-zμΩ]+")
_TIMES = ("s", "h", "hr", "min", "sec", "second", "hour", "minute")
_DELIMITERS = re.compile(r"\\[()\[\]]|(?<!\\)\$\$")
_SPACES = re.compile(r"(?<!\\)\\[,;:!> ]|~")
_BRACED_COMMA = re.compile(r"\s*\{\s*,\s*\}\s*")
# A comma in braces is part of a number. If it does not separate thousands, it is a decimal comma, but not in x_{1{,}2}.
_DECIMAL_COMMA = re.compile(
    r"^(?P<before>(?:(?!\\\{)[^(\[,])*?)(?<![\d.])(?<!_\{)(?P<whole>\d+)\s*\{\s*,\s*\}\s*"
    r"(?P<decimals>(?:\d{1,2}|\d{4,}|(?<=\b0\{,\})\d{3})(?![\d.]))(?=[^)\],]*$)"
)
_SIZE_OF_BRACKET = re.compile(r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![A-Za-z])\s*")
# Kept before a letter, where it may be the end of a command.
_NEGATIVE_SPACE = re.compile(r"(?<!\\)\\!\s*(?![A-Za-z])")
# Placeholder of an escaped dollar sign while the other dollar signs, which enclose formulas, are dropped.
_MONEY = "\x00"
_DRESSING = " \t\n.,;:!?\"'`*_~"
_FACTORIAL = re.compile(r"(?:\d|\)|\}|(?<![A-Za-z])[A-Za-z])$")


def _from_the_inside(pattern: re.Pattern[str], replacement: Callable[[re.Match[str]], str], text: str) -> str:
    """Replace nested matches, innermost first, down to a depth of 10."""
    for _ in range(10):
        text, replaced = pattern.subn(replacement, text)
        if not replaced:
            break
    return text


def _and_so_on(match: re.Match[str]) -> str:
    """Read 0.333... as 1/3, but keep the digits of 3.14159..., where nothing repeats."""
    before, block, again = match[2], match[3], match[4]
    repetitions = 1 + len(again) // len(block)
    if len(block) * repetitions < 3 and before:
        return match[1] + before + block + again
    return rf"{match[1]}{before}\overline{{{block}}}"


def _prefix_fractions(text: str) -> str:
    r"""Rewrite {a \over b} as \frac{a}{b}, and {a \choose b} as \binom{a}{b}."""
    names = {"over": "frac", "choose": "binom"}
    text = text if _INFIX.search(text) else f"{{{text}}}"
    return _from_the_inside(_INFIX, lambda match: rf"\{names[match[2]]}{{{match[1]}}}{{{match[3]}}}", text)


def _fraction_of_units(match: re.Match[str]) -> str:
    r"""Rewrite \frac{J}{mol K} as J/(mol K), but keep fractions whose letters may be variables."""
    above, below = (_UNIT_WORDS.findall(part) for part in match.groups())
    are_units = above and below and all(unit_of(word) for word in (*above, *below))
    surely = (below and below[0] in _TIMES) or any(len(word) > 1 for word in (*above, *below))
    return f" {match[1]}/({match[2]})" if are_units and surely else match[0]


def _without_dollars(text: str) -> str:
    r"""Drop dollar signs around formulas. A dollar sign before a number, or escaped, means money."""
    return _FORMULA.sub(r" \1 ", text) if text.count("$") > 1 else text


def normalize(answer: str) -> str:
    """Return an answer in normalized spelling, trimmed. Idempotent."""
    text = before_latex(answer if answer.isascii() else _from_unicode(answer))
    if "," in text:
        text = _DECIMAL_COMMA.sub(r"\g<before>\g<whole>.\g<decimals>", text)
    if "(" in text and "." in text:
        text = _BRACKETED_DIGITS.sub(lambda match: rf"{match[1]}\overline{{{match[2]}}}", text)
    if "…" in text or ".." in text or "dots" in text:
        text = _MORE_OF_A_LIST.sub("…", _DIGITS_AND_SO_ON.sub(_and_so_on, text))
    text = _from_latex(text) if "\\" in text else _without_dollars(_BRACED_COMMA.sub(",", text.replace("$$", " ")))
    text = one_spelling(" ".join(text.split()).removesuffix(".").rstrip())
    return _trim(" ".join(text.split()))


def _from_unicode(text: str) -> str:
    text = _INVISIBLE.sub("", text).translate(_BEFORE)
    text = _SUPERSCRIPT_RUN.sub(lambda match: f"^{{{match[0].translate(_SUPERSCRIPTS)}}}", text)
    text = _SUBSCRIPT_RUN.sub(lambda match: f"_{{{match[0].translate(_SUBSCRIPTS)}}}", text)
    text = _CIRCLED.sub(lambda match: ", ".join(match[0]), text)
    text = _CIRCLED_LABEL.sub(lambda match: f"({unicodedata.numeric(match[0]):g}) ", text)
    text = _VULGAR.sub(lambda match: f" {match[0]}", text)
    text = _BARRED_DIGITS.sub(lambda match: rf"\overline{{{match[0].replace(chr(0x305), '')}}}", text)
    return unicodedata.normalize("NFKC", text).translate(_AFTER)


def _from_latex(text: str) -> str:
    if "dot" in text or "bar" in text or "overline" in text:
        text = _DOTTED_DIGITS.sub(lambda match: rf"\overline{{{''.join(filter(None, match.groups()))}}}", text)
    text = _SEGMENT.sub(r" \1 ", _UNSEEN.sub(" ", text))
    if r"\begin" in text:
        text = _CASES.sub(lambda match: _CONDITION.sub(" if ", match[2]).replace(r"\\", ", ").replace("&", ""), text)
    else:
        text = text.replace(r"\\", ", ")
    if _IS_INFIX.search(text):
        text = _prefix_fractions(text)
    text = _SIZE_OF_BRACKET.sub("", _NEGATIVE_SPACE.sub("", text))
    text = _BRACED_COMMA.sub(",", text).replace("{}", " ")
    text = _without_dollars(_DELIMITERS.sub(" ", text).replace(r"\$", _MONEY)).replace(_MONEY, "$")
    text = _from_the_inside(_WRAPPER, lambda match: f" {match[1]} ", _SPACES.sub(" ", text))
    text = _COMMAND.sub(lambda match: f"{_SYMBOLS[match[1]]} " if match[1] in _SYMBOLS else match[0], text)
    if r"\frac" in text:
        text = _FRACTION_OF_UNITS.sub(_fraction_of_units, text)
    return text.replace(r"\%", "%").replace(r"\#", "#").replace(r"\&", "&").replace(r"\_", "_").replace(r"\|", "|")


def _trim(text: str) -> str:
    """Strip punctuation, but keep decimal points, primes and factorials."""
    if text[:1] in ("'", '"') and text[:1] == text[-1:]:
        text = text.strip(text[0])
    end = text.rstrip(_DRESSING + "\\")
    behind = text[len(end) :]
    sign = behind[: len(behind) - len(behind.lstrip(behind[0]))] if behind[:1] in ("'", "!") else behind[:1]
    if (
        (sign and set(sign) == {"'"} and end[-1:].isalnum())
        or (sign == '"' and end[-1:].isdigit())
        or (sign and set(sign) == {"!"} and _FACTORIAL.search(end))
    ):
        end += sign
    begin = end.lstrip(" \t\n,;:!?\"'`*_")
    return begin if re.match(r"\.\d", begin) else begin.lstrip(".")
