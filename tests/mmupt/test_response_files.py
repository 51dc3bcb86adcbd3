"""Files of responses round-trip and are either complete or absent."""

import os
from pathlib import Path

import pytest

from mmupt.evaluation.response_files import Response, read_parameters, read_whole, write_responses

RESPONSES = [Response("q1", "greedy", 0, 'so "\\boxed{1}"\n', 5), Response("q1", "sample", 0, "né \u2028", 3)]


def test_responses_round_trip(tmp_path: Path) -> None:
    file = tmp_path / "new" / "responses.jsonl"
    write_responses(file, RESPONSES, {"samples": 1})
    assert read_whole(file) == RESPONSES
    assert read_parameters(file) == {"samples": 1}
    assert sorted(path.name for path in file.parent.iterdir()) == ["responses.jsonl", "responses.parameters.json"]


def test_a_line_that_is_not_a_response_is_named(tmp_path: Path) -> None:
    file = tmp_path / "responses.jsonl"
    write_responses(file, RESPONSES[:1], {})
    for row in ('{"id": "q2"}', "{"):
        file.write_text(file.read_text().splitlines()[0] + f"\n{row}\n")
        with pytest.raises(ValueError, match=r"responses\.jsonl, line 2, is not a response"):
            read_whole(file)


@pytest.mark.parametrize("fails_at", [1, 2])
def test_an_interrupted_write_leaves_no_complete_file(tmp_path: Path, monkeypatch, fails_at: int) -> None:
    file = tmp_path / "responses.jsonl"
    write_responses(file, RESPONSES[:1], {"seed": 0})
    replace, calls = os.replace, []

    def interrupted(*paths: Path) -> None:
        calls.append(paths)
        if len(calls) == fails_at:
            raise KeyboardInterrupt
        replace(*paths)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_responses(file, RESPONSES, {"seed": 1})
    assert read_parameters(file) is None
    assert read_whole(file) in (RESPONSES[:1], RESPONSES)
