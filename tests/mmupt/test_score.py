"""Stand-ins of the benchmarks with the hub's columns are prepared, answered and scored."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmupt.benchmarks import BENCHMARKS, Question, read_questions, rule_version
from mmupt.cli import main
from mmupt.datasets import data_set
from mmupt.evaluation.benchmark_scores import BenchmarkScores, StoredScore, labelled, render
from mmupt.evaluation.judge_client import Judge
from mmupt.evaluation.response_files import Response, read_parameters, read_whole, write_responses
from mmupt.evaluation.score_files import score_file
from mmupt_data.figure_task import write_figures
from mmupt_data.row_schema import Row
from mmupt_data.writer import write_dataset
from verl_ext.files import sha256

Answer = Callable[[Question, int], str]


def answered(tmp_path: Path, data: Path, answer: Answer, samples: int = 2) -> Path:
    """A file of responses to all questions of a data file, greedy and sampled."""
    responses = []
    for number, question in enumerate(read_questions(data).values()):
        text = f"so \\boxed{{{answer(question, number)}}}"
        responses.append(Response(question.id, "greedy", 0, text, 5))
        responses += [Response(question.id, "sample", sample, text, 5) for sample in range(samples)]
    file = tmp_path / "responses.jsonl"
    write_responses(file, responses, {"data": {str(data): sha256(data)}})
    return file


@pytest.fixture(
    params=[("mathvista", "testmini"), ("mathvision", "test"), ("mathverse", "testmini"), ("wemath", "testmini")]
)
def benchmark(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "mmupt_data"))
    from hub_shaped import write

    name, split = request.param
    data_set(name).prepare(tmp_path / name, str(write(tmp_path / "source", name, rows=8)))
    return name, tmp_path / name / f"{split}.parquet"


@pytest.fixture
def figures(tmp_path: Path) -> Path:
    write_figures(tmp_path / "figures", train=3, validation=3, test=6)
    return tmp_path / "figures" / "test.parquet"


def test_ground_truths_are_right_by_every_rule(benchmark: tuple[str, Path], tmp_path: Path) -> None:
    name, data = benchmark
    (scores,) = score_file(answered(tmp_path, data, lambda question, _: question.truth))
    assert scores.benchmark == name and scores.rule == BENCHMARKS[name].rules[0].name
    rules = [*(rule.name for rule in BENCHMARKS[name].rules), "own"]
    figures = {f"{rule}, {mode}" for rule in rules for mode in ("greedy", "mean@2", "pass@2")}
    assert set(labelled(scores.accuracy)) == figures | {"own, maj@2"}
    assert scores.versions == {rule: rule_version(name, rule) for rule in rules}
    assert all(score.per_question == (1.0,) * 8 for score in labelled(scores.accuracy).values())
    assert all(one["value"] == 1.0 for labels in scores.breakdowns.values() for one in labels.values())


def test_half_wrong_answers_halve_accuracy_and_breakdowns(benchmark: tuple[str, Path], tmp_path: Path) -> None:
    def half(question: Question, number: int) -> str:
        return question.truth if number < 4 else "something else entirely"

    _, data = benchmark
    (scores,) = score_file(answered(tmp_path, data, half))
    own = scores.accuracy["own"]["greedy"]
    assert own.value == 0.5 and own.standard_error == pytest.approx((2 / 7 / 8) ** 0.5)
    for labels in scores.breakdowns.values():
        assert sum(one["questions"] for one in labels.values()) == 8
        right = sum(one["value"] * one["questions"] for one in labels.values())
        assert right == pytest.approx(8 * scores.accuracy[scores.rule]["greedy"].value)


def test_each_response_has_a_verdict_line(benchmark: tuple[str, Path], tmp_path: Path) -> None:
    name, data = benchmark
    file = answered(tmp_path, data, lambda question, _: question.truth)
    score_file(file)
    lines = [json.loads(line) for line in file.with_suffix(".verdicts.jsonl").read_text().splitlines()]
    assert len(lines) == 8 * 3
    assert lines[0]["answer"] == lines[0]["truth"] and set(lines[0]["right"]) == {
        "own",
        *(rule.name for rule in BENCHMARKS[name].rules),
    }
    assert json.loads(file.with_suffix(".scores.json").read_text())[0]["benchmark"] == name


def test_the_table_shows_rule_and_version_of_every_score() -> None:
    score = StoredScore(0.5, 0.1, 25)
    scores = BenchmarkScores(
        benchmark="wemath",
        rule="official",
        versions={"official": 3, "own": 2},
        questions=25,
        not_answered=0,
        left_out=0,
        not_asked=0,
        no_answer=0.0,
        accuracy={"official": {"greedy": score}, "own": {"greedy": score}},
        further={"strict score": 0.25},
        breakdowns={"step": {"2steps_1": {"value": 0.75, "questions": 4}, "a|b": {"value": 0.5, "questions": 2}}},
    )
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in render(scores).splitlines()]
    assert ["official, greedy", "3", "50.00 ± 10.00", "25"] in rows
    assert ["own, greedy", "2", "50.00 ± 10.00", "25"] in rows
    assert ["official, strict score", "3", "25.00", ""] in rows
    assert ["2steps_1", "75.00", "4"] in rows and ["a\\|b", "50.00", "2"] in rows


def test_the_figure_task_is_scored_only_by_the_own_rule(figures: Path, tmp_path: Path) -> None:
    (scores,) = score_file(answered(tmp_path, figures, lambda question, _: question.truth))
    assert set(labelled(scores.accuracy)) == {f"own, {figure}" for figure in ("greedy", "mean@2", "pass@2", "maj@2")}
    assert set(scores.breakdowns) == {"question_type"}


def test_samples_give_mean_pass_and_majority_scores(figures: Path, tmp_path: Path) -> None:
    questions = read_questions(figures)
    # Of three samples per question, three, two, one or none are right; the wrong samples agree.
    texts = [
        Response(id_, "sample", sample, f"so \\boxed{{{one.truth if sample < number else 999}}}", 1)
        for one_number, (id_, one) in enumerate(questions.items())
        for number in [3 - one_number if one_number < 4 else 3]
        for sample in range(3)
    ]
    file = tmp_path / "responses.jsonl"
    write_responses(file, texts, {"data": {str(figures): "sha"}})
    (scores,) = score_file(file)
    values = {name: score.value for name, score in labelled(scores.accuracy).items()}
    assert values == {
        "own, mean@3": pytest.approx((3 + 2 + 1 + 0 + 3 + 3) / 18),
        "own, pass@3": pytest.approx(5 / 6),
        "own, maj@3": pytest.approx(4 / 6),
    }


def test_a_file_that_cannot_be_scored_is_named(figures: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*responses\.jsonl: "):
        score_file(tmp_path / "responses.jsonl")
    file = answered(tmp_path, figures, lambda question, _: question.truth)
    write_responses(file, [Response("other", "greedy", 0, "x", 1)], {"data": {str(figures): "sha"}})
    with pytest.raises(ValueError, match="none of its 1 lines"):
        score_file(file)
    figures.with_suffix(".truth.parquet").unlink()
    with pytest.raises(ValueError, match="no ground truth for 6 of 6 rows"):
        score_file(file)


def test_each_bad_line_of_a_poisoned_file_is_named_and_the_rest_scored(
    figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = answered(tmp_path, figures, lambda question, _: question.truth)
    clean = score_file(file)
    whole = file.read_bytes()
    last = json.loads(whole.splitlines()[-1])
    bad = {
        whole.splitlines()[0][:-20]: "Invalid control character|Expecting|Unterminated",
        json.dumps({**last, "id": "../../etc/passwd"}).encode(): "no question has the id",
        whole.splitlines()[1]: "line 2 already has its sample response 0",
        b'{"id": "\xff"}': "can't decode",
        b"[" * 100_000: "recursion|depth|Expecting",
        json.dumps({**last, "sample": 7, "mode": "beam"}).encode(): "mode is 'beam'",
        json.dumps({**last, "sample": True}).encode(): "sample is True",
        json.dumps({**last, "response": None}).encode(): "response is None",
        b'{"id": "x"}': "no mode, response, sample",
        json.dumps({**last, "reward": 1}).encode(): "unknown keys reward",
        b"": "Expecting value",
    }
    file.write_bytes(whole + b"\n".join(bad) + b"\n")
    capsys.readouterr()
    assert score_file(file) == clean
    named = capsys.readouterr().err.splitlines()
    assert len(named) == len(bad)
    for number, (line, why) in enumerate(zip(named, bad.values(), strict=True), start=6 * 3 + 1):
        assert re.search(rf"line {number}, is left out: .*({why})", line), line


@pytest.mark.parametrize(
    "answer", ["\\frac{" * 2_000, "9^{9^{9^{9}}}", "\\boxed{" * 500, "__import__('os')", "\x00" * 99]
)
def test_hostile_answers_are_wrong_and_harmless(figures: Path, tmp_path: Path, answer: str) -> None:
    file = answered(tmp_path, figures, lambda question, number: answer if number == 0 else question.truth)
    (scores,) = score_file(file)
    assert scores.accuracy["own"]["greedy"].value == pytest.approx(5 / 6)


def test_a_question_with_fewer_responses_than_the_others_is_left_out_and_counted(figures: Path, tmp_path: Path) -> None:
    file = answered(tmp_path, figures, lambda question, _: question.truth)
    # Drops the second sample of the last question, and all responses to the first question.
    file.write_text("".join(file.read_text().splitlines(keepends=True)[3:-1]))
    (scores,) = score_file(file)
    assert (scores.questions, scores.not_answered, scores.left_out) == (6, 1, 1)
    assert scores.accuracy["own"]["greedy"].questions == 5
    assert scores.accuracy["own"]["mean@2"].questions == 4


@pytest.fixture
def tagged(tmp_path: Path) -> Path:
    """Samples whose answers are in tags: three of "no", which mathruler takes for another answer than "No."."""
    questions = [Row(f"q{number}", "made-up", f"Is {number} odd?", (), "a", "No.") for number in range(2)]
    write_dataset(tmp_path, {"test": questions}, {})
    responses = [
        Response(question.id, "sample", sample, f"<answer>{'no' if sample else 'No.'}</answer>", 5)
        for question in questions
        for sample in range(4)
    ]
    file = tmp_path / "responses.jsonl"
    parameters = {"data": {str(tmp_path / "test.parquet"): "sha"}, "extraction": "answer_tag"}
    write_responses(file, responses, {**parameters, "rule": "mathruler"})
    return file


def test_extraction_and_rule_come_from_the_file(tagged: Path) -> None:
    (scores,) = score_file(tagged)
    assert scores.no_answer == 0.0 and scores.versions == {"mathruler": rule_version("made-up", "own")}
    found = {name: score.value for name, score in labelled(scores.accuracy).items()}
    # The majority, three of four samples, is wrong by this rule.
    assert found == {"mathruler, mean@4": 0.25, "mathruler, pass@4": 1.0, "mathruler, maj@4": 0.0}
    assert scores.semantic_entropy is not None and scores.semantic_entropy.value == pytest.approx(0.5623, abs=1e-4)


def test_given_settings_override_recorded_settings(tagged: Path) -> None:
    (scores,) = score_file(tagged, rule="canonical")
    assert {name: score.value for name, score in labelled(scores.accuracy).items()} == dict.fromkeys(
        ("own, mean@4", "own, pass@4", "own, maj@4"), 1.0
    )
    (scores,) = score_file(tagged, "boxed")
    assert scores.no_answer == 1.0


def test_saved_scores_round_trip(tagged: Path) -> None:
    (scores,) = score_file(tagged)
    (saved,) = map(BenchmarkScores.from_json, json.loads(tagged.with_suffix(".scores.json").read_text()))
    assert saved.to_json() == scores.to_json() and set(labelled(saved.accuracy)) == set(labelled(scores.accuracy))


def test_the_command_prints_a_table_per_file(tagged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(tagged), "--rule", "canonical"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"# {tagged}\n") and "own, mean@4" in shown


def test_the_command_accepts_an_evaluation_folder(tagged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(tagged.parent)]) == 0
    assert f"# {tagged}\n" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="has no file of responses"):
        main(["score", str(tagged.parent.parent)])


def test_an_unwritable_scores_file_is_a_one_line_error(tagged: Path) -> None:
    tagged.with_suffix(".scores.json").mkdir()
    with pytest.raises(SystemExit, match=r"error: .*\.scores\.json"):
        main(["score", str(tagged)])


def test_changed_data_cause_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_figures(tmp_path, train=1, validation=1, test=4)
    data = tmp_path / "test.parquet"
    file = answered(tmp_path, data, lambda question, _: question.truth)
    score_file(file)
    assert capsys.readouterr().err == ""
    write_figures(tmp_path, train=1, validation=1, test=5)
    score_file(file)
    assert capsys.readouterr().err == (
        f"{file}: {data} has changed since these responses; its ids may name other questions\n"
    )


def test_an_unknown_extraction_is_named_with_its_file(tagged: Path) -> None:
    write_responses(tagged, read_whole(tagged), {**read_parameters(tagged), "extraction": "box"})
    with pytest.raises(ValueError, match=r"parameters\.json: extraction='box' is none of boxed"):
        score_file(tagged)


def test_a_judge_that_no_benchmark_uses_causes_a_warning(tagged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (scores,) = score_file(tagged, judge=Judge("http://127.0.0.1:1/v1", "some/judge"))
    assert scores.not_judged == 0 and scores.rule == "mathruler"
    assert f"{tagged}: some/judge is not asked about made-up, whose rules use no judge" in capsys.readouterr().err


@pytest.mark.parametrize("metadata", [["easy", ""], ["[1]", "1"], [{"level": 1}, None], [1, 2]])
def test_a_users_own_metadata_column_is_ignored(tmp_path: Path, metadata: list[Any]) -> None:
    pq.write_table(pa.table({"id": ["a", "b"], "prompt": ["how many ?", "how much ?"]}), tmp_path / "mine.parquet")
    truth = pa.table({"id": ["a", "b"], "answer": ["1", "2"], "metadata": metadata})
    pq.write_table(truth, tmp_path / "mine.truth.parquet")
    questions = read_questions(tmp_path / "mine.parquet")
    assert [(one.truth, dict(one.metadata)) for one in questions.values()] == [("1", {}), ("2", {})]
