"""An evaluation asks each question once, even after kills, and fails early when it cannot run."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation_rows import MODEL, PICTURES, ROWS
from hypothesis import example, given, settings
from hypothesis import strategies as st
from judge_server import MODEL as JUDGE
from judge_server import Reply, serve
from stand_in_engine import OutOfMemory, StandInEngine

from mmupt.benchmarks import Question, read_questions
from mmupt.compose import as_override
from mmupt.evaluation import evaluate as module
from mmupt.evaluation import response_cache
from mmupt.evaluation.evaluate import EvaluationError, load_evaluation_config
from mmupt.evaluation.generation import QuestionRequest
from mmupt.evaluation.response_files import Response, parameters_path, read_whole
from mmupt.evaluation.verdicts import verdicts_of
from mmupt.runtime.run_lock import exclusive_run
from mmupt_data.row_schema import Row, prompts_path
from mmupt_data.writer import write_dataset


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_dataset(tmp_path, {"test": ROWS}, {})
    return prompts_path(tmp_path, "test")


class Engine(StandInEngine):
    """Answers with the id of the question, the mode and the number of the response."""

    def respond(self, request: QuestionRequest, number: int) -> str:
        return f"{request.row['id']} {request.mode} {number}"


def run(data: Path, output: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str, fails_after: int = 10**9) -> Engine:
    engine = Engine(fails_after)
    monkeypatch.setattr(response_cache, "answer_questions", engine.answers)
    fixed = [f"model={MODEL}", f"files={{test:{data}}}", f"output={output}", "score=false", "preset=tiny", "samples=2"]
    module.evaluate(load_evaluation_config([*fixed, *overrides]))
    return engine


def test_the_file_lists_greedy_responses_first_in_question_order(data: Path, tmp_path: Path, monkeypatch) -> None:
    run(data, tmp_path / "out", monkeypatch)
    found = [(one.id, one.mode, one.sample) for one in read_whole(tmp_path / "out" / "test.jsonl")]
    assert found == [(row.id, "greedy", 0) for row in ROWS] + [(row.id, "sample", i) for row in ROWS for i in range(2)]


def test_unjudged_responses_are_reported_at_the_end(tmp_path: Path, monkeypatch) -> None:
    metadata = {"question_for_eval": "how many ?", "problem_version": "Text Lite", "metadata": {}}
    row = Row("q", "mathverse", "<image>how many ?", PICTURES[:1], "multi-choice", "A", metadata=metadata)
    write_dataset(tmp_path, {"test": [row, replace(row, id="r", question="<image>how much ?")]}, {})
    with serve(lambda *_: Reply(status=400)) as server:
        keys = ["score=true", f"judge.url={server.url}", f"judge.model={JUDGE}"]
        with pytest.raises(EvaluationError, match="6 responses are not judged yet: the same command"):
            run(prompts_path(tmp_path, "test"), tmp_path / "out", monkeypatch, *keys)


@pytest.mark.parametrize("fails_after", range(6))
def test_requests_finished_before_a_failure_are_not_repeated(
    data: Path, tmp_path: Path, monkeypatch, fails_after: int
) -> None:
    output = tmp_path / "out"
    with pytest.raises(OutOfMemory):
        run(data, output, monkeypatch, fails_after=fails_after)
    assert not (output / "test.jsonl").exists()
    engine = run(data, output, monkeypatch)
    assert len(engine.requests) == 6 - fails_after
    whole = read_whole(output / "test.jsonl")
    run(data, tmp_path / "undisturbed", monkeypatch)
    assert whole == read_whole(tmp_path / "undisturbed" / "test.jsonl")
    assert run(data, output, monkeypatch).requests == []
    assert sorted(path.name for path in output.iterdir()) == [
        "config.yaml",
        "lock",
        "test.jsonl",
        "test.parameters.json",
    ]


def test_a_line_cut_by_a_kill_is_requested_again(data: Path, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(OutOfMemory):
        run(data, tmp_path / "out", monkeypatch, fails_after=4)
    growing = tmp_path / "out" / "test.partial.jsonl"
    growing.write_bytes(growing.read_bytes()[:-7])
    assert len(run(data, tmp_path / "out", monkeypatch).requests) == 3
    assert len(read_whole(tmp_path / "out" / "test.jsonl")) == 9


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "half made"])
def test_responses_made_with_other_settings_are_kept_unless_replace_is_set(
    data: Path, tmp_path: Path, monkeypatch, whole: bool
) -> None:
    output = tmp_path / "out"
    if whole:
        run(data, output, monkeypatch)
    else:
        with pytest.raises(OutOfMemory):
            run(data, output, monkeypatch, fails_after=4)
    before = {path.name: path.read_bytes() for path in output.glob("test*")}
    with pytest.raises(EvaluationError, match=r"other settings \(temperature\).*replace=true"):
        run(data, output, monkeypatch, "temperature=0.5")
    assert {path.name: path.read_bytes() for path in output.glob("test*")} == before
    assert len(run(data, output, monkeypatch, "temperature=0.5", "replace=true").requests) == 6
    assert json.loads(parameters_path(output / "test.jsonl").read_text())["temperature"] == 0.5


def test_changed_weights_and_data_count_as_other_settings(data: Path, tmp_path: Path, monkeypatch) -> None:
    output, model = tmp_path / "out", tmp_path / "weights"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    run(data, output, monkeypatch, f"model={model}")
    (model / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(EvaluationError, match=r"other settings \(weights\)"):
        run(data, output, monkeypatch, f"model={model}")
    (model / "model.safetensors").unlink()
    with pytest.raises(EvaluationError, match="weights"):
        run(data, output, monkeypatch, f"model={model}")
    write_dataset(data.parent, {"test": ROWS[:2]}, {"rows": 2})
    with pytest.raises(EvaluationError, match=r"other settings \(data, weights\)"):
        run(data, output, monkeypatch, f"model={model}")


def test_replicas_and_engine_arguments_do_not_invalidate_responses(data: Path, tmp_path: Path, monkeypatch) -> None:
    run(data, tmp_path / "out", monkeypatch)
    assert run(data, tmp_path / "out", monkeypatch, "replicas=2", "engine={max_num_seqs:8}").requests == []


def test_a_limit_asks_only_the_first_questions(data: Path, tmp_path: Path, monkeypatch) -> None:
    assert {one.row["id"] for one in run(data, tmp_path / "out", monkeypatch, "limit=2").requests} == {"one", "two"}


def test_a_second_evaluation_into_the_same_folder_fails_at_once(data: Path, tmp_path: Path, monkeypatch) -> None:
    output = tmp_path / "out"
    with exclusive_run(output, output / "x"), pytest.raises(BlockingIOError, match="in use by the run of process"):
        run(data, output, monkeypatch)


def test_scores_are_written_while_the_folder_is_locked(data: Path, tmp_path: Path, monkeypatch) -> None:
    output, score_file = tmp_path / "out", module.score_file

    def scored(*arguments: Any, **options: Any) -> Any:
        with pytest.raises(BlockingIOError), exclusive_run(output, output / "x"):
            pass
        return score_file(*arguments, **options)

    monkeypatch.setattr(module, "score_file", scored)
    run(data, output, monkeypatch, "score=true")
    assert (output / "test.scores.json").is_file()


@pytest.mark.parametrize("source", ["made-up", "figures"])
def test_several_files_of_one_data_source_are_all_scored(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(module.PAPER.titles, "figures", "Figures")
    write_dataset(tmp_path, {"test": [replace(row, data_source=source) for row in ROWS]}, {})
    data = prompts_path(tmp_path, "test")
    run(data, tmp_path / "out", monkeypatch, "score=true", f"+files.again={data}")
    assert len([*(tmp_path / "out").glob("*.scores.json")]) == 2
    told = "there is no table next to the paper's results" in capsys.readouterr().out
    assert told == (source == "figures")


def test_an_unreadable_partial_file_is_named(data: Path, tmp_path: Path, monkeypatch) -> None:
    output = tmp_path / "out"
    with pytest.raises(OutOfMemory):
        run(data, output, monkeypatch, fails_after=4)
    growing = output / "test.partial.jsonl"
    growing.write_text(growing.read_text().replace("[{", "\0{", 1))
    with pytest.raises(EvaluationError, match=r"test\.partial\.jsonl, line 2, is not JSON .*: remove the line"):
        run(data, output, monkeypatch)
    growing.unlink()
    run(data, output, monkeypatch)
    parameters_path(output / "test.jsonl").write_text("")
    with pytest.raises(EvaluationError, match=r"test\.parameters\.json is not a JSON object"):
        run(data, output, monkeypatch)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["benchmarks=[mathvisa]"],
            "'mathvisa' is none of figures, figures_hard, mathverse, mathvision, mathvista, wemath",
        ),
        (["benchmarks=[geoqa]"], "name a split, NAME/SPLIT"),
        ([], "nothing to answer"),
        (["files={a:missing.parquet}"], r"a: missing\.parquet is missing"),
        (["samples=0"], "no responses are asked for"),
        (["samples=-1", "greedy=true"], "samples must be a whole number of at least 0, not -1"),
        (["samples=many"], "samples must be a whole number of at least 0, not 'many'"),
        (["temperature=warm"], "temperature must be a number of at least 0, not 'warm'"),
        (["prompt=polite"], "prompt must be one of own, official"),
        (["preset=official"], "test: made-up has no official prompt"),
        (["device=tpu"], "device must be one of cpu, cuda"),
        (["temprature=1"], "there is no key 'temprature'; did you mean 'temperature'"),
        (["+temprature=1"], "there is no key 'temprature'; did you mean 'temperature'"),
        (["judge.ulr=1"], "ulr"),
        (["limit=0"], "limit must be null or a whole number of at least 1, not 0"),
        (["limit=1.5"], "limit must be null or a whole number of at least 1, not 1.5"),
        (["limit=1"], "test: .*a single question of made-up has no standard error"),
        (["extraction=box"], "extraction must be one of boxed, answer_tag, answer_is, official"),
        (["extraction=official"], "test: made-up has no official prompt"),
        (["files={x/y: missing.parquet}"], "'x/y' names a file of responses"),
        (["files={figures: missing.parquet}", "benchmarks=[figures]"], "'figures' names a file of responses"),
        (["preset=warm"], "there is no preset 'warm'; known: greedy, official, paper, tiny"),
        (["temperature 1"], "temperature 1"),
        (["judge.model=m"], "judge.url and judge.model belong together"),
    ],
)
def test_known_errors_are_raised_before_anything_starts(
    data: Path, tmp_path: Path, overrides: list[str], said: str
) -> None:
    fixed = [f"model={MODEL}", f"output={tmp_path / 'out'}"]
    if overrides and not overrides[0].startswith(("benchmarks", "files")):
        fixed.append(f"files={{test:{data}}}")
    with pytest.raises(EvaluationError, match=said):
        module.evaluate(load_evaluation_config([*fixed, *overrides]))


def test_a_missing_model_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="give model="):
        module.evaluate(load_evaluation_config(["benchmarks=[figures]"]))


def test_two_rows_with_one_id_are_refused(data: Path, tmp_path: Path, monkeypatch) -> None:
    write_dataset(tmp_path / "other", {"test": [replace(ROWS[0], question="<image>another one ?")]}, {})
    files = f"files={{test:[{data},{prompts_path(tmp_path / 'other', 'test')}]}}"
    with pytest.raises(EvaluationError, match=r"test: two rows of .* have the id 'one'"):
        run(data, tmp_path / "out", monkeypatch, files, fails_after=0)


@pytest.mark.parametrize(("source", "key"), [("mathvista", "metadata"), ("wemath", "key")])
def test_rows_of_a_benchmark_without_its_scoring_metadata_are_refused(
    source: str, key: str, tmp_path: Path, monkeypatch
) -> None:
    rows = [replace(row, data_source=source, question_type="free_form") for row in ROWS]
    write_dataset(tmp_path, {"test": rows}, {})
    said = f"test: question '.*' has no '{key}' in its metadata, .* {source} .*`mmupt data {source}`"
    with pytest.raises(EvaluationError, match=said):
        run(prompts_path(tmp_path, "test"), tmp_path / "out", monkeypatch, "score=true", fails_after=0)


def test_a_missing_truth_is_named_before_anything_is_generated(data: Path, tmp_path: Path) -> None:
    data.with_suffix(".truth.parquet").unlink()
    with pytest.raises(EvaluationError, match=r"test\.parquet has no truth: .*test\.truth\.parquet .*score=false"):
        module.evaluate(
            load_evaluation_config([f"model={MODEL}", f"files={{test:{data}}}", f"output={tmp_path / 'out'}"])
        )


def test_an_official_prompt_without_its_metadata_file_is_an_error(tmp_path: Path, monkeypatch) -> None:
    write_dataset(tmp_path, {"test": [replace(row, data_source="mathvista") for row in ROWS]}, {})
    data = prompts_path(tmp_path, "test")
    data.with_suffix(".truth.parquet").unlink()
    with pytest.raises(EvaluationError, match=r"test: .*test\.truth\.parquet: no ground truth for 3 of 3 rows"):
        run(data, tmp_path / "out", monkeypatch, "prompt=official")


def test_a_users_file_is_answered_and_unreadable_rows_are_named_first(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "mine.parquet"
    (tmp_path / "a.png").write_bytes(PICTURES[0])
    columns = {"prompt": ["<image>what ?", "how ?"], "image": ["a.png", None], "answer": [4, 5]}
    pq.write_table(pa.table(columns), file)
    run(file, tmp_path / "out", monkeypatch, "score=true", "greedy=true", "samples=0")
    ids = [f"{tmp_path.name}-mine-00000{row}" for row in range(2)]
    assert [one.id for one in read_whole(tmp_path / "out" / "test.jsonl")] == ids
    assert {id_: one.truth for id_, one in read_questions(file).items()} == dict(zip(ids, "45", strict=True))
    pq.write_table(pa.table({**columns, "image": ["a.png", "http://example.org/b.png"]}), file)
    with pytest.raises(EvaluationError, match=r"mine\.parquet, row 1, .*: image 0 is the address"):
        run(file, tmp_path / "other", monkeypatch, fails_after=0)


def test_the_default_settings_are_the_papers() -> None:
    config = load_evaluation_config(["model=m"])
    assert (config.temperature, config.max_tokens, config.samples, config.greedy) == (0.2, 16384, 1, False)
    assert (config.min_pixels, config.max_pixels, config.system_prompt) == (
        50176,
        1003520,
        "You are a helpful assistant.",
    )
    assert load_evaluation_config(["model=m", "preset=greedy"]).greedy
    assert load_evaluation_config(["model=m", "preset=official"]).prompt == "official"


@settings(max_examples=20)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n$"), min_size=1))
@example("\\")
@example("it's \\boxed{}\\'")
def test_any_text_survives_as_an_override(text: str) -> None:
    config = load_evaluation_config([as_override("model", text), as_override("forbidden_openings", [text, "b"])])
    assert config.model == text and list(config.forbidden_openings) == [text, "b"]


def test_a_question_with_an_undecodable_image_counts_as_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*ROWS, Row("lost", "made-up", "<image>what ?", (PICTURES[0][:-40],), "a", "1")]
    write_dataset(tmp_path, {"test": rows}, {}, evaluation=["test"])
    engine = run(prompts_path(tmp_path, "test"), tmp_path / "out", monkeypatch, "score=true")
    assert "lost" not in {one.row["id"] for one in engine.requests}
    responses = [one for one in read_whole(tmp_path / "out" / "test.jsonl") if one.id == "lost"]
    assert [(one.mode, one.sample, one.response) for one in responses] == [
        ("greedy", 0, ""),
        ("sample", 0, ""),
        ("sample", 1, ""),
    ]
    assert all(one.not_asked and "image 0 cannot be decoded" in one.not_asked for one in responses)
    (scores,) = json.loads((tmp_path / "out" / "test.scores.json").read_text())
    assert scores["not_asked"] == 1 and scores["accuracy"]["own"]["greedy"]["questions"] == 4
    output = capsys.readouterr().out
    assert "test: 4 of 4 questions answered and scored" in output
    assert "not asked, counted as wrong: lost: image 0 cannot be decoded" in output


def test_a_response_to_a_question_that_could_not_be_asked_is_wrong_by_every_rule() -> None:
    # MathVista takes the nearest option if there is no answer.
    question = Question("q", "mathvista", "<image>?", "multi_choice", ("", "5"), "", {"answer_type": "text"})
    (verdict,) = verdicts_of([Response("q", "greedy", 0, "", 0, "no image")], {"q": question})
    assert verdict.right["own"] is False and not any(verdict.right.values())


@pytest.mark.parametrize("overrides", [(), ("allow_partial=true",), ("limit=2",)])
def test_an_incomplete_benchmark_is_not_scored_unless_allowed(
    overrides: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    monkeypatch.setattr(module, "data_set", lambda _: SimpleNamespace(prepare=lambda *_, **__: False))
    write_dataset(tmp_path / "wemath", {"testmini": ROWS}, {}, evaluation=["testmini"], official_rows={"testmini": 5})
    engine = Engine()
    monkeypatch.setattr(response_cache, "answer_questions", engine.answers)
    settings = [f"model={MODEL}", "benchmarks=[wemath]", f"output={tmp_path / 'out'}", "preset=tiny", "samples=0"]
    if not overrides:
        with pytest.raises(
            EvaluationError, match=r"wemath: .*testmini\.parquet has 3 of 5 questions.*allow_partial=true"
        ):
            module.evaluate(load_evaluation_config(settings))
        assert engine.requests == []
        return
    module.evaluate(load_evaluation_config([*settings, *overrides]))
    asked = "2 of 5 questions answered and scored (limit=2)" if "limit" in overrides[0] else "3 of 5 questions"
    assert f"wemath: {asked}" in capsys.readouterr().out


def test_missing_responses_stop_the_evaluation_before_the_table(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(data, tmp_path / "out", monkeypatch)
    responses = tmp_path / "out" / "test.jsonl"
    responses.write_text("".join(f"{line}\n" for line in responses.read_text().splitlines() if '"two"' not in line))
    with pytest.raises(EvaluationError, match="test: 2 of 3 questions are answered and scored: remove"):
        run(data, tmp_path / "out", monkeypatch, "score=true")
    run(data, tmp_path / "out", monkeypatch, "score=true", "allow_partial=true")
