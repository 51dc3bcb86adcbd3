r"""One spelling for what Unicode and LaTeX spell in many ways, before an answer is read.

`plain` returns text in which LaTeX decoration is gone (`\left`, `\text{...}`, `$`, thin spaces), signs are single
characters (`\leq` is ≤, `^\circ` is °) and digits and brackets are those of ASCII. What structure says stays: `\frac`,
`\sqrt`, braces, powers.
"""

import re
import unicodedata

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SUBSCRIPT_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_VULGAR = re.compile("[¼-¾⅐-⅞]")
_INVISIBLE = re.compile("[\u200b-\u200f\u2060\ufeff\u00ad]")
# º and ˚ would become letters or accents.
_BEFORE = str.maketrans({"º": "°", "˚": "°"})
_AFTER = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "⁄": "/", "∕": "/", "÷": "/", "×": "*", "·": "*", "⋅": "*",
        "∙": "*", "•": "*", "∗": "*", "∶": ":", "′": "'", "’": "'", "‘": "'", "“": '"', "”": '"', "″": '"', "⩽": "≤",
        "⩾": "≥", "≦": "≤", "≧": "≥", "≈": "=", "≅": "=", "∣": "|", "，": ",", "、": ",", "。": ".", "；": ";",
        "π": "π", "Π": "Π", "∏": "∏", "µ": "μ", "½": "1/2", "【": "[", "】": "]", "￥": "¥", "ϕ": "φ", "ε": "ε",
    }
)  # fmt: skip
_SIGNS = {
    "leq": "≤", "le": "≤", "leqslant": "≤", "geq": "≥", "ge": "≥", "geqslant": "≥", "neq": "≠", "ne": "≠", "lt": "<",
    "gt": ">", "approx": "=", "cong": "=", "times": "*", "cdot": "*", "ast": "*", "div": "/", "pm": "±", "mp": "∓",
    "infty": "∞", "cup": "∪", "cap": "∩", "in": "∈", "emptyset": "∅", "varnothing": "∅", "degree": "°", "circ": "∘",
    "angle": "∠", "triangle": "△", "colon": ":", "mid": "|", "vert": "|", "lvert": "|", "rvert": "|", "percent": "%",
    "prime": "'", "lbrace": r"\{", "rbrace": r"\}", "lbrack": "[", "rbrack": "]", "ldots": "…", "dots": "…",
    "cdots": "…", "to": "→", "rightarrow": "→", "parallel": "∥", "perp": "⊥", "sim": "∼", "dollar": "$",
    "pi": "π", "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "varepsilon": "ε", "theta": "θ",
    "vartheta": "θ", "lambda": "λ", "mu": "μ", "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "φ", "varphi": "φ",
    "omega": "ω", "Omega": "Ω", "Delta": "Δ", "Gamma": "Γ", "Theta": "Θ", "Phi": "Φ", "eta": "η", "xi": "ξ",
    "zeta": "ζ", "nu": "ν", "chi": "χ", "psi": "ψ", "kappa": "κ",
    "euro": "€", "pounds": "£", "yen": "¥",
    "quad": " ", "qquad": " ", "displaystyle": "", "textstyle": "", "limits": "", "left": "", "right": "", "big": "",
    "Big": "", "bigl": "", "bigr": "", "Bigl": "", "Bigr": "", "bigg": "", "Bigg": "", "rm": "", "bf": "", "it": "",
    "thinspace": "", "dfrac": r"\frac", "tfrac": r"\frac", "cfrac": r"\frac", "dbinom": r"\binom",
    "tbinom": r"\binom", "vec": "→", "overrightarrow": "→",
}  # fmt: skip
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_WRAPPER = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|mathrm|mathbf|mathit|mathsf|mathbb|mathcal|boldsymbol|bm|mbox|hbox|emph"
    r"|operatorname|underline|boxed|fbox)\*?\s*\{([^{}]*)\}"
)
_DELIMITERS = re.compile(r"\\[()\[\]]|(?<!\\)\$\$")
_SPACES = re.compile(r"(?<!\\)\\[,;:!> ]|~")
_BRACED_COMMA = re.compile(r"\s*\{\s*,\s*\}\s*|,\\!\s*")
_CIRCLE = re.compile(r"\^\s*(?:∘|\{\s*∘\s*\})|∘")
_TEMPERATURE = re.compile(r"°\s*([CFK])(?![A-Za-z])")
# Stands for an escaped dollar sign, where others are the bounds of a formula.
_MONEY = "\x00"
_DRESSING = " \t\n.,;:!?\"'`*"
_FACTORIAL = re.compile(r"(?:\d|\)|\}|(?<![A-Za-z])[A-Za-z])$")
_CHINESE_PERCENT = re.compile("百分之([零一二三四五六七八九十百]+|[0-9.]+)")
_CHINESE_DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九")}


def _chinese_number(text: str) -> str:
    """Up to 999; digits are returned as they are."""
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


def _unwrap(text: str) -> str:
    # From the inside out, as a wrapper holds no braces then; bounded by the depth that is read at all.
    for _ in range(10):
        unwrapped = _WRAPPER.sub(lambda match: f" {match[1]} ", text)
        if unwrapped == text:
            break
        text = unwrapped
    return text


def _without_dollars(text: str) -> str:
    r"""Drop the signs around a formula; a sign before a number, or an escaped one, is money."""
    if text.count("$") == 2 and text.startswith("$"):
        text = text.replace("$", " ")
    return text


def plain(answer: str) -> str:
    """Return an answer in its one spelling, trimmed; the same text again for what is plain already."""
    text = _INVISIBLE.sub("", answer).translate(_BEFORE)
    text = _SUPERSCRIPT_RUN.sub(lambda match: f"^{{{match[0].translate(_SUPERSCRIPTS)}}}", text)
    text = _SUBSCRIPT_RUN.sub(lambda match: f"_{{{match[0].translate(_SUBSCRIPTS)}}}", text)
    text = _VULGAR.sub(lambda match: f" {match[0]}", text)
    text = unicodedata.normalize("NFKC", text).translate(_AFTER)
    if "\\" in text:
        text = _BRACED_COMMA.sub(",", text)
        text = _without_dollars(_DELIMITERS.sub(" ", text).replace(r"\$", _MONEY)).replace(_MONEY, "$")
        text = _unwrap(_SPACES.sub(" ", text))
        text = _COMMAND.sub(lambda match: f"{_SIGNS[match[1]]} " if match[1] in _SIGNS else match[0], text)
        text = text.replace(r"\%", "%").replace(r"\#", "#").replace(r"\&", "&").replace(r"\_", "_").replace(r"\|", "|")
    else:
        text = _without_dollars(_BRACED_COMMA.sub(",", text))
    if "∘" in text or "°" in text:
        text = _TEMPERATURE.sub(r"°\1", _CIRCLE.sub("°", text))
    if "百分之" in text:
        text = _CHINESE_PERCENT.sub(lambda match: f"{_chinese_number(match[1])}%", text)
    return _trim(" ".join(text.split()))


def _trim(text: str) -> str:
    """Without punctuation around it; a decimal point, a prime and a factorial are none."""
    end = text.rstrip(_DRESSING)
    sign = text[len(end) : len(end) + 1]
    if (
        (sign == "'" and end[-1:].isalnum())
        or (sign == '"' and end[-1:].isdigit())
        or (sign == "!" and _FACTORIAL.search(end))
    ):
        end += sign
    begin = end.lstrip(" \t\n,;:!?\"'`*")
    return begin if re.match(r"\.\d", begin) else begin.lstrip(".")
