"""Pages of notebooks, with text, code and saved outputs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def page(notebook: Path) -> str:
    """Return a notebook as Markdown, with plots as data URLs.

    Raises:
        ValueError: an output has neither text nor a picture; the message names the notebook.
    """
    cells = json.loads(notebook.read_text())["cells"]
    link = f'<a href="{notebook.name}" download>{notebook.name}</a> is this page as a notebook.'
    return "\n\n".join([part for cell in cells for part in _parts(cell, notebook)] + [link]) + "\n"


def _parts(cell: dict[str, Any], notebook: Path) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            yield f"![Plot](data:image/png;base64,{''.join(data['image/png']).strip()})"
        elif text := "".join(output.get("text") or data.get("text/plain") or ()):
            yield f"```text\n{text.rstrip()}\n```"
        else:
            raise ValueError(f"{notebook}: an output of type {output['output_type']} cannot be shown")
