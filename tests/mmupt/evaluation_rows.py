"""Rows, images and the model shared by tests of evaluation."""

import io
from pathlib import Path

from PIL import Image

from mmupt_data.row_schema import Row

ROOT = Path(__file__).parents[2]

MODEL = ROOT / "recipes" / "mmupt" / "tiny" / "model"


def picture(width: int, height: int, color: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), color).save(file, format="PNG")
    return file.getvalue()


PICTURES = (picture(84, 84, "red"), picture(84, 90, "blue"))

ROWS = [
    Row("one", "made-up", "<image>what is the area of the triangle ?", (picture(84, 84, "red"),), "a", "1"),
    # Neither side is a multiple of the patch size, so both processors must scale them equally.
    Row("two", "made-up", "<image>or\n<image>?", (picture(90, 131, "red"), picture(300, 60, "blue")), "a", "2"),
    Row("none", "made-up", "what is the sum ?", (), "a", "3"),
]
