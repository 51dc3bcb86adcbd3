"""`benchmarks/official_scores.py` runs on a folder with the layout that its docstring describes."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import official_scores

# Stand-in for the authors' `calculate_score.py`: maps letters to options, and parses integers.
THEIR_CODE = """
def normalize_extracted_answer(extraction, choices, question_type, answer_type, precision):
    return choices["ABCD".index(extraction)] if question_type == "multi_choice" else str(int(extraction))
"""


def row(pid: str, response: str, extraction: str, answer: str, choices: list[str] | None) -> dict[str, object]:
    return {
        "pid": pid,
        "question": "How many?",
        "image": f"images/{pid}.jpg",
        "choices": choices,
        "unit": None,
        "precision": None,
        "question_type": "multi_choice" if choices else "free_form",
        "answer_type": "text" if choices else "integer",
        "answer": answer,
        "metadata": {"task": "counting"},
        "query": "Hint\nQuestion: How many?",
        "response": response,
        "extraction": extraction,
    }


@pytest.fixture
def authors(tmp_path: Path) -> Path:
    """A folder with MathVista (three responses, the verdicts on one of which differ) and MathVerse (two rows)."""
    vista = tmp_path / "MathVista"
    for name in ("evaluation", "results/model", "data"):
        (vista / name).mkdir(parents=True)
    (vista / "evaluation/calculate_score.py").write_text(THEIR_CODE)
    rows = [
        row("1", "The answer is (B).", "B", "two", ["one", "two"]),
        row("2", "So there are 5.", "5", "5", None),
        row("3", "The answer is (A).", "B", "one", ["one", "two"]),
    ]
    (vista / "results/model/output_model.json").write_text(json.dumps({item["pid"]: item for item in rows}))
    data = tmp_path / "MathVerse/data"
    data.mkdir(parents=True)
    kinds = (("multi-choice", "Find x.\nChoices:\nA:1\nB:2", "B"), ("free-form", "Find x.", "7"))
    lines = [
        {"sample_index": str(index), "question_type": kind, "question": text, "answer": answer}
        for index, (kind, text, answer) in enumerate(kinds)
    ]
    (data / "testmini_text_only.json").write_text(json.dumps(lines))
    return tmp_path


def run(authors: Path, only: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["official.py", str(authors), "--only", only])
    official_scores.main()


def test_the_table_counts_where_both_agree(
    authors: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(authors, "MathVista", monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert "| MathVista | normalised, their answers | model | 3 | 3 | 100.00 |" in lines
    assert "| MathVista | verdict, responses | model | 2 | 3 | 66.67 |" in lines
    assert "| MathVista | verdict, responses whose extraction is an answer | all | 2 | 2 | 100.00 |" in lines
    other = "extractions of another letter than the response states"
    assert f"| MathVista | verdict, {other} | all | 0 | 1 | 0.00 |" in lines
    assert f"MathVista, verdict, {other}: 1" in lines


def test_mathverse_is_checked_without_the_authors_code(
    authors: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(authors, "MathVerse", monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert "| MathVerse | options are read | testmini_text_only | 1 | 1 | 100.00 |" in lines
    assert "| MathVerse | the truth alone is right | testmini_text_only | 2 | 2 | 100.00 |" in lines


def test_an_error_in_the_authors_code_ends_the_run(authors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (authors / "MathVista/evaluation/calculate_score.py").write_text("raise RuntimeError('no such module')")
    with pytest.raises(SystemExit, match="no such module"):
        run(authors, "MathVista", monkeypatch)


def test_a_missing_repository_is_named(
    authors: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(authors, "We-Math", monkeypatch)
    assert "We-Math is missing" in capsys.readouterr().err
