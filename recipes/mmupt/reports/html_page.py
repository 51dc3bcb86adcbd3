"""HTML pages that show rows: single files without scripts or external resources.

Rows are untrusted: all text is escaped (`mmupt.reports.formulas`), all pictures are re-encoded, and the page's policy
forbids the browser to load or run anything. The report that writes a page decides its content.
"""

import base64
import html
from collections.abc import Iterable
from pathlib import Path

from mmupt.reports.encoded_pictures import encode_anew
from mmupt.reports.formulas import answer_with_formulas, with_formulas
from verl_ext.control_text import PLACEHOLDER
from verl_ext.files import write_atomically
from verl_ext.images import ImageError

# Longest side of a picture in px; a click or Enter enlarges it to this size.
PICTURE_SIZE = 800
# Longer texts are cut in the middle, because questions and answers come at the end.
CHARACTERS_SHOWN = 4_000

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --line: light-dark(#ccc, #444); --quiet: light-dark(#666, #aaa) }}
body {{ font: 15px/1.45 sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em }}
section {{ border-top: 1px solid var(--line); padding: 1em 0; display: grid; gap: 1em;
  grid-template-columns: 1fr 1fr }}
section > header {{ grid-column: 1 / -1 }}
section > div {{ min-width: 0 }}
details.picture {{ display: inline-block; vertical-align: top; max-width: 100% }}
details.picture > summary {{ list-style: none; cursor: zoom-in }}
details.picture[open] {{ display: block }}
details.picture[open] > summary {{ cursor: zoom-out }}
img {{ border: 1px solid var(--line); background: #fff; max-width: 100%; max-height: 420px; min-width: 220px }}
details[open] > summary > img {{ max-height: none; width: 100% }}
p {{ white-space: pre-wrap; overflow-wrap: anywhere; margin: 0 0 .6em }}
menclose {{ border: 1px solid; padding: .1em .35em; margin: 0 .1em }}
small {{ display: block }}
small, .dropped {{ color: var(--quiet) }}
@media (max-width: 700px) {{ section {{ grid-template-columns: 1fr }} }}
</style>
<h1>{title}</h1>
{body}
</html>
"""


def write_page(path: Path, title: str, *parts: str) -> None:
    """Write a page; `title` is plain text, `parts` are HTML."""
    page = PAGE.format(title=html.escape(title), body="\n".join(parts))
    write_atomically(path, page)


def section(*columns: str, header: str = "") -> str:
    """Return one entry of a page: two columns of HTML, with `header` across both."""
    across = f"<header>{header}</header>" if header else ""
    return f"<section>{across}{''.join(f'<div>{column}</div>' for column in columns)}</section>"


def paragraph(text: str, kind: str = "") -> str:
    """Return a text as a paragraph; `kind` is its CSS class."""
    return f'<p class="{kind}">{shown(text)}</p>' if kind else f"<p>{shown(text)}</p>"


def shown(text: str) -> str:
    """Convert a text to HTML: escaped, with formulas, shortened if it is long."""
    return with_formulas(shortened(text))


def shown_question(text: str) -> str:
    """Convert a question to HTML as `shown` does, without image placeholders."""
    return shown(text.replace(PLACEHOLDER, " ").strip())


def shown_answer(answer: str) -> str:
    """Convert an extracted answer to HTML as `shown` does, or as a single formula."""
    return answer_with_formulas(shortened(answer))


def shortened(text: str) -> str:
    """Cut the middle out of a text of more than CHARACTERS_SHOWN characters."""
    if len(text) > CHARACTERS_SHOWN:
        half = CHARACTERS_SHOWN // 2
        return f"{text[:half]}\n[{len(text) - 2 * half:,} characters are left out]\n{text[-half:]}"
    return text


def pictures(encoded: Iterable[bytes]) -> str:
    """Re-encode images and return them as HTML."""
    return "".join(map(_picture, encoded))


def _picture(encoded: bytes) -> str:
    try:
        kind, picture = encode_anew(encoded, PICTURE_SIZE)
    # Still show the text of the row.
    except ImageError:
        return "<em>an image that cannot be decoded</em> "
    source = f"data:{kind};base64,{base64.b64encode(picture).decode()}"
    return f'<details class="picture"><summary><img alt="image of the question" src="{source}"></summary></details>'
