"""Converts text with LaTeX formulas to HTML: formulas become MathML, which browsers render; everything else is escaped.

The text is untrusted. Only elements and attributes of `latex2mathml`'s output that draw something are kept, so no link,
style or script gets through. A formula that `latex2mathml` cannot parse is shown as written.
"""

import html
import re
from collections.abc import Iterator
from functools import lru_cache
from xml.etree.ElementTree import Element

from latex2mathml.converter import Converter

# Longer formulas are shown as text: conversion time grows with the square of the length.
LONGEST_FORMULA = 1_000
# Opening delimiter of a formula -> closing delimiter.
_CLOSERS = {"$$": "$$", "\\[": "\\]", "\\(": "\\)", "$": "$"}
_OPENER = re.compile(r"\$\$|\$|\\\[|\\\(|\\boxed\s*\{|\\begin\{(?P<environment>[a-z]+\*?)\}")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
# Macros can expand without bound.
_DEFINITION = re.compile(
    r"\\([gex]?def|let|(re)?newcommand|providecommand|(re)?newenvironment|DeclareMathOperator)(?![a-zA-Z])"
)
# Matches somewhere in an answer that is a formula without delimiters.
_LATEX = re.compile(r"\\[a-zA-Z]|[\^_]")
_ARGUMENTS = {
    "mfrac": 2,
    "msub": 2,
    "msup": 2,
    "msubsup": 3,
    "mroot": 2,
    "munder": 2,
    "mover": 2,
    "munderover": 3,
}
_ELEMENTS = {
    *_ARGUMENTS,
    *("math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "msqrt", "mstyle", "mtable", "mtr", "mtd", "menclose"),
    *("mpadded", "mphantom"),
}
_ATTRIBUTES = {
    *("accent", "accentunder", "columnalign", "columnspacing", "display", "displaystyle", "fence", "form", "height"),
    *("linethickness", "lspace", "mathvariant", "maxsize", "minsize", "movablelimits", "notation", "rowspacing"),
    *("rspace", "scriptlevel", "separator", "stretchy", "symmetric", "width"),
}
# Attribute values; lengths with three or more digits, which could fill the page, do not match.
_VALUE = re.compile(r"(?!.*\d{3})[\w .%+-]{1,60}")


def with_formulas(text: str) -> str:
    r"""Convert text to HTML, with formulas in `$...$`, `$$...$$`, `\(...\)`, `\[...\]`, environments and `\boxed{...}`.

    To keep prices as text, `$...$` is a formula only if it is on one line, no digit follows it, and it either has no
    spaces at its ends or contains a command, a power or an index.

    >>> with_formulas("5 < 6 $")
    '5 &lt; 6 $'
    """
    return "".join(_parts(text))


def answer_with_formulas(answer: str) -> str:
    """Convert an extracted answer to HTML; without delimiters, an answer that looks like LaTeX is one formula."""
    if not _OPENER.search(answer) and _LATEX.search(answer):
        return mathml(answer) or html.escape(answer)
    return with_formulas(answer)


@lru_cache(maxsize=4096)
def mathml(latex: str, display: str = "inline") -> str | None:
    """Convert a formula without delimiters to MathML; None if it cannot be shown. `display`: "inline" or "block"."""
    if len(latex) > LONGEST_FORMULA or _DEFINITION.search(latex):
        return None
    try:
        return _written(Converter(display=display).convert_to_element(latex))
    # The converter raises exceptions of any type on malformed input.
    except Exception:
        return None


def _parts(text: str) -> Iterator[str]:
    start = position = 0
    while opener := _OPENER.search(text, position):
        if (found := _formula(text, opener)) is None:
            position = opener.end()
            continue
        latex, display, position = found
        if drawn := mathml(latex, display):
            yield html.escape(text[start : opener.start()])
            yield drawn
            start = position
    yield html.escape(text[start:])


def _formula(text: str, opener: re.Match[str]) -> tuple[str, str, int] | None:
    """Return the formula that starts at `opener`, its display and its end; None if no formula starts there."""
    first, sign = opener.end(), opener[0]
    limit = first + LONGEST_FORMULA
    if environment := opener["environment"]:
        closer = f"\\end{{{environment}}}"
        end = text.find(closer, first, limit)
        return None if end < 0 else (text[opener.start() : end + len(closer)], "block", end + len(closer))
    if sign not in _CLOSERS:
        closed = _closing_brace(text, first, limit)
        return None if closed is None else (text[opener.start() : closed], "inline", closed)
    closer = _CLOSERS[sign]
    end = text.find(closer, first, limit)
    content = text[first:end]
    if end < 0 or not content.strip():
        return None
    if sign == "$" and not _is_inline_formula(content, text[end + 1 : end + 2]):
        return None
    return content, "block" if sign in ("$$", "\\[") else "inline", end + len(closer)


def _is_inline_formula(content: str, after: str) -> bool:
    """Return whether the text between two dollar signs is a formula, not a price."""
    spaced = content[0].isspace() or content[-1].isspace()
    return "\n" not in content and not after.isdigit() and (not spaced or _LATEX.search(content) is not None)


def _closing_brace(text: str, first: int, limit: int) -> int | None:
    """Return the end of the brace opened just before `first`; None if it does not close before `limit`."""
    depth = 1
    for brace in _BRACE.finditer(text, first, limit):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return brace.end()
    return None


def _written(element: Element) -> str:
    """Serialize an element for the browser; ValueError for an element that would be drawn wrongly."""
    name = element.tag
    if name not in _ELEMENTS or len(element) != _ARGUMENTS.get(name, len(element)):
        raise ValueError(f"{name} with {len(element)} arguments")
    text = html.unescape(element.text or "")
    if "\\" in text and name != "mtext":
        raise ValueError(f"unknown command {text}")
    attributes = "".join(
        f' {key}="{html.escape(value)}"'
        for key, value in element.attrib.items()
        if key in _ATTRIBUTES and _VALUE.fullmatch(value)
    )
    return f"<{name}{attributes}>{html.escape(text)}{''.join(map(_written, element))}</{name}>"
