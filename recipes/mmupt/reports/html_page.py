"""HTML pages that show rows to people: one file each, which runs nothing and loads nothing.

What the rows say is not trusted: all text is escaped, every picture is encoded anew, and the browser is told to load
and run nothing. What is on a page is up to the report that writes it.
"""

import base64
import html
import io
from collections.abc import Iterable
from pathlib import Path

from verl_ext.files import write_atomically
from verl_ext.images import ImageError, decode

# Longest side of a picture, px.
PICTURE_SIZE = 260
# Longer texts lose their middle: questions ask and responses answer at the end.
CHARACTERS_SHOWN = 4_000

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 15px/1.4 sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em }}
section {{ border-top: 1px solid #ccc; padding: 1em 0; display: grid; grid-template-columns: 1fr 1fr; gap: 1em }}
section > header {{ grid-column: 1 / 3 }}
section > div {{ min-width: 0 }}
img {{ max-width: 100%; border: 1px solid #ddd }}
p {{ white-space: pre-wrap; overflow-wrap: anywhere; margin: 0 0 .6em }}
small {{ display: block }}
small, .dropped {{ color: #777 }}
</style>
<h1>{title}</h1>
{body}
</html>
"""


def write_page(path: Path, title: str, *parts: str) -> None:
    """Write a page: `title` is any text, `parts` are HTML."""
    page = PAGE.format(title=html.escape(title), body="\n".join(parts))
    write_atomically(path, page)


def section(*columns: str, header: str = "") -> str:
    """One entry of a page in two columns, all of it HTML, `header` across both."""
    across = f"<header>{header}</header>" if header else ""
    return f"<section>{across}{''.join(f'<div>{column}</div>' for column in columns)}</section>"


def paragraph(text: str, kind: str = "") -> str:
    """A text as a paragraph; `kind` is its CSS class."""
    return f'<p class="{kind}">{shown(text)}</p>' if kind else f"<p>{shown(text)}</p>"


def shown(text: str) -> str:
    """A text as HTML shows it, escaped, without its middle where it is long."""
    if len(text) > CHARACTERS_SHOWN:
        half = CHARACTERS_SHOWN // 2
        text = f"{text[:half]}\n[{len(text) - 2 * half:,} characters are left out]\n{text[-half:]}"
    return html.escape(text)


def pictures(encoded: Iterable[bytes]) -> str:
    """Encoded images as HTML, small and encoded anew."""
    return "".join(map(_picture, encoded))


def _picture(encoded: bytes) -> str:
    try:
        image = decode(encoded).image
    # A row may be of interest for its text.
    except ImageError:
        return "<em>an image that cannot be decoded</em> "
    image.thumbnail((PICTURE_SIZE, PICTURE_SIZE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
