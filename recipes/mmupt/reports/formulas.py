"""Text with LaTeX formulas as HTML: formulas become MathML, which browsers draw themselves; all else is escaped.

The text is not trusted. Of `latex2mathml`'s output, only elements and attributes that draw something are kept, so no
link, style or script gets through. A formula that it cannot parse is shown as written.
"""

import html
import re
from collections.abc import Iterator
from functools import lru_cache
from xml.etree.ElementTree import Element

from latex2mathml.converter import Converter

# Longer formulas are shown as text: the time of a conversion grows with the square of the length.
LONGEST_FORMULA = 1_000
# Closing delimiters of formulas by their opening delimiters.
_CLOSERS = {"$$": "$$", "\\[": "\\]", "\\(": "\\)", "$": "$"}
_OPENER = re.compile(r"\$\$|\$|\\\[|\\\(|\\boxed\s*\{|\\begin\{(?P<environment>[a-z]+\*?)\}")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
# Macros can expand without bound.
_DEFINITION = re.compile(
    r"\\([gex]?def|let|(re)?newcommand|providecommand|(re)?newenvironment|DeclareMathOperator)(?![a-zA-Z])"
)
# Found in an answer that is a formula without delimiters.
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
# No lengths as large as a page.
_VALUE = re.compile(r"(?!.*\d{3})[\w .%+-]{1,60}")


def with_formulas(text: str) -> str:
    r"""A text as HTML, with formulas in `$...$`, `$$...$$`, `\(...\)`, `\[...\]`, environments and `\boxed{...}`.

    Text between two single `$` is a formula if it is on one line, not followed by a digit, and without spaces at its
    ends or with a command, a power or an index; so prices stay text.

    >>> with_formulas("5 < 6 $")
    '5 &lt; 6 $'
    """
    return "".join(_parts(text))


def answer_with_formulas(answer: str) -> str:
    """An extracted answer as HTML: as `with_formulas`, or a formula as a whole if it looks like one."""
    if not _OPENER.search(answer) and _LATEX.search(answer):
        return mathml(answer) or html.escape(answer)
    return with_formulas(answer)


@lru_cache(maxsize=4096)
def mathml(latex: str, display: str = "inline") -> str | None:
    """A formula without delimiters as a MathML element, "inline" or "block"; None for one that cannot be shown."""
    if len(latex) > LONGEST_FORMULA or _DEFINITION.search(latex):
        return None
    try:
        return _written(Converter(display=display).convert_to_element(latex))
    # The converter's parser raises any exception at malformed input.
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
    """The formula that begins here, how it is displayed, and where it ends; None if none does."""
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
    """Whether the text between two dollars is a formula and not a price."""
    spaced = content[0].isspace() or content[-1].isspace()
    return "\n" not in content and not after.isdigit() and (not spaced or _LATEX.search(content) is not None)


def _closing_brace(text: str, first: int, limit: int) -> int | None:
    """The end of the brace that was opened before `first`; None if it does not close before `limit`."""
    depth = 1
    for brace in _BRACE.finditer(text, first, limit):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return brace.end()
    return None


def _written(element: Element) -> str:
    """An element as sent to a browser; ValueError for one that would be drawn wrongly."""
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
