"""HTML pages that show rows to people: one file each, which runs nothing and loads nothing.

Nobody has vouched for what the rows say, so that all of it is escaped, and every picture is encoded anew. What stands
on a page is for its own module to say.
"""

import base64
import html
import io
from pathlib import Path

from verl_ext.files import write_atomically
from verl_ext.images import ImageError, decode

# Longest side of a picture, px.
PICTURE_SIZE = 260
# Longer texts lose their middle: questions ask and responses answer at the end.
CHARACTERS_SHOWN = 4_000

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.4 sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em }}
section {{ border-top: 1px solid #ccc; padding: 1em 0; display: grid; grid-template-columns: 1fr 1fr; gap: 1em }}
section > :is(h2, header) {{ grid-column: 1 / 3; font-size: 1em; margin: 0 }}
section > div {{ min-width: 0 }}
img {{ max-width: 100%; border: 1px solid #ddd }}
p {{ white-space: pre-wrap; overflow-wrap: anywhere }}
</style>
<h1>{title}</h1>
{body}
</html>
"""


def write_page(path: Path, title: str, body: str) -> None:
    """Write a page: `title` is any text, `body` is HTML, of which each section has two columns."""
    write_atomically(path, PAGE.format(title=html.escape(title), body=body))


def shown(text: str) -> str:
    """A text as HTML shows it, escaped, without its middle where it is long."""
    if len(text) > CHARACTERS_SHOWN:
        half = CHARACTERS_SHOWN // 2
        text = f"{text[:half]}\n[{len(text) - 2 * half:,} characters are left out]\n{text[-half:]}"
    return html.escape(text)


def picture(encoded: bytes) -> str:
    """An encoded image as HTML, small and encoded anew."""
    try:
        image = decode(encoded).image
    # A row may be of interest for its text.
    except ImageError:
        return "<em>an image that cannot be decoded</em> "
    image.thumbnail((PICTURE_SIZE, PICTURE_SIZE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
