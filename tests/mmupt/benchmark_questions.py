"""Handmade benchmark questions."""

from typing import Any

from mmupt.benchmarks import Question


def question(
    truth: str, choices: tuple[str, ...] | None = None, kind: str = "free_form", text: str = "what ?", **metadata: Any
) -> Question:
    return Question("q", "benchmark", text, kind, choices, truth, metadata)


FIVE = ("10", "20", r"$\frac{1}{2}$", "$40 \\mathrm{~cm}$", "$50^{\\circ}$")
