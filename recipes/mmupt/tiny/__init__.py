"""Two Qwen2.5-VL models with about a million parameters, built from scratch, to run the whole method on a laptop."""

from pathlib import Path

FOLDER = Path(__file__).parent / "model"
HARD_FOLDER = Path(__file__).parent / "hard_model"
