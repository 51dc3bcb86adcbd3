"""Files of responses round-trip and are either complete or absent."""

import os
from pathlib import Path

import pytest

from mmupt.evaluation.response_files import Response, read_parameters, read_whole, write_responses
from mmupt.evaluation.resumable_file import OtherParametersError, ResumableFile

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


@pytest.mark.parametrize("complete", [True, False], ids=["complete", "partial"])
def test_responses_are_kept_after_their_model_and_data_were_moved(tmp_path: Path, complete: bool) -> None:
    def parameters(folder: str, **others: object) -> dict[str, object]:
        return {
            "model": f"{folder}/round_1/model",
            "weights": {"model.safetensors": [7, 99]},
            "data": {f"{folder}/b/rows.parquet": "sha b", f"{folder}/a/rows.parquet": "sha a"},
            **others,
        }

    path = tmp_path / "questions.jsonl"
    file = ResumableFile(path, parameters("/old"))
    file.append(RESPONSES[:1])
    if complete:
        file.finish({"q1": 0})
    moved = ResumableFile(path, parameters("/new"))
    assert moved.whole == complete and moved.has("q1", "greedy")
    if complete:
        assert read_parameters(path) == parameters("/new")
    else:
        assert str(parameters("/new")["model"]) in path.with_suffix(".partial.jsonl").read_text().splitlines()[0]
    for name, value in {
        "weights": {"model.safetensors": [7, 100]},
        "model": "/new/round_1/other",
        "data": {"/new/b/rows.parquet": "sha b", "/new/a/rows.parquet": "sha c"},
    }.items():
        with pytest.raises(OtherParametersError, match=rf"other settings \({name}\)"):
            ResumableFile(path, parameters("/new", **{name: value}))


def test_a_model_of_the_hub_is_identified_by_its_whole_name(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    ResumableFile(path, {"model": "one/model", "weights": {}}).append(RESPONSES[:1])
    with pytest.raises(OtherParametersError, match=r"other settings \(model\)"):
        ResumableFile(path, {"model": "other/model", "weights": {}})
