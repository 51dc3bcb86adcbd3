"""Two Qwen2.5-VL with about a million parameters, built from scratch, on which the whole method runs on a laptop."""

from pathlib import Path

FOLDER = Path(__file__).parent / "model"
HARD_FOLDER = Path(__file__).parent / "hard_model"
