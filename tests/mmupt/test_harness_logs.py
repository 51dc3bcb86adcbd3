"""Real logs of lmms-eval and VLMEvalKit on our rows are imported and scored, and every difference is explained.

`harness_logs/README.md` describes how the logs were made.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from harness_records import SPLITS, Record
from harness_rows import ROWS, prepared
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmupt.benchmarks import Question, read_questions
from mmupt.evaluation.harness_importers import Format, UnusableRow, read_harness_file
from mmupt.evaluation.question_matching import Evidence, QuestionIndex, Unusable, read_index
from mmupt.evaluation.response_files import Response
from mmupt.evaluation.verdicts import verdicts_of

LOGS = Path(__file__).parent / "harness_logs"
LMMS_EVAL = LOGS / "lmms_eval_0.7.3"
VLMEVALKIT = LOGS / "vlmevalkit"
# Reasons why lmms-eval's score of a response differs from ours, by task and question.
EXPLAINED: Mapping[str, Mapping[str, str]] = {
    "mathvista_testmini_cot": dict.fromkeys(("10", "11"), "it rounds to 1.0 digits, a float as on the hub, and fails"),
    "mathvista_testmini_cot_reasoning": {"102": "the text of the option is not its letter"},
    "mathvision_reason_test_reasoning": {
        "528": "a box within the tag is not read",
        "31": "the text of the option is not its letter",
        "32": "the text of the option is not its letter",
        "33": "a degree sign is not removed",
        "34": "\\frac12 is not read",
    },
    # The judge was a stand-in that compared texts.
    "mathverse_testmini": dict.fromkeys(("5", "7", "11", "12", "13"), "another text than the truth"),
    "mathverse_testmini_reasoning": {
        **dict.fromkeys(("5", "7", "11", "12"), "another text than the truth"),
        "13": "the same text as the truth, of two letters",
    },
}
# Reasons for VLMEvalKit, by table and index.
VLMEVALKIT_DIFFERS: Mapping[str, Mapping[str, str]] = {
    "MathVista_MINI": {
        "101": "the official rule takes the nearest option",
        "8": "int() refuses 3.0",
        "11": "a dollar sign is not removed",
        "12": "a list is compared as the text None",
    },
    "MathVision": {"32": "the text of the option is not its letter"},
    # The judge was a stand-in that compared texts.
    "MathVerse_MINI": dict.fromkeys(("3", "4", "6"), "another text than the truth"),
    "MathVerse_MINI_Text_Lite": {"1": "another text than the truth"},
    "WeMath": {"1": "a letter in a box is not after the word Answer"},
}


@pytest.fixture(scope="session")
def data_of(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        folder = tmp_path_factory.mktemp("data")
        return {name: prepared(folder, name) for name in ROWS}


def benchmark_of(file: Path) -> str:
    return next(name for name in ROWS if name in file.name.lower())


def id_of(name: str, row: Record) -> str:
    column = {"mathvista": "pid", "mathvision": "id", "mathverse": "sample_index"}
    return f"{name}-{SPLITS[name]}-" + (row[column[name]] if name in column else f"{row['ID']}@{row['key']}")


def rows_of(file: Path) -> list[Record]:
    """The rows that a log was made from."""
    rows = ROWS[benchmark_of(file)]
    version = re.search(r"text_lite|vision_only", file.name.lower())
    return [row for row in rows if not version or row["problem_version"].lower().replace(" ", "_") == version[0]]


def assert_matched(file: Path, format_: Format, data: Path) -> list[Response]:
    """Assert that every row with a question in the data is matched to it, and that all other rows are named."""
    questions = read_questions(data)
    ids = [id_of(benchmark_of(file), row) for row in rows_of(file)]
    responses, bad = read_harness_file(file, format_, read_index(data))
    assert [response.id for response in responses] == [id_ for id_ in ids if id_ in questions]
    assert [row.problem for row in bad] == ["match no question" for id_ in ids if id_ not in questions]
    return responses


def their_score(record: Record) -> bool:
    """The verdict of lmms-eval on a response."""
    score = next(
        record[name]
        for name in ("llm_as_judge_eval", "mathvision_standard_eval", "gpt_eval_score", "acc_score")
        if name in record
    )
    if isinstance(score, dict):
        return bool(score["true_false"]) if "true_false" in score else bool(score["scores"][0])
    return bool(score == 1)


@pytest.mark.parametrize("file", sorted(LMMS_EVAL.glob("samples_*.jsonl")), ids=lambda file: file.stem)
def test_samples_of_lmms_eval_are_matched_and_scores_differ_only_as_explained(
    file: Path, data_of: Mapping[str, Path]
) -> None:
    data = data_of[benchmark_of(file)]
    responses = assert_matched(file, "lmms-eval", data)
    records = [json.loads(line) for line in file.read_text().splitlines()]
    theirs = dict(zip((id_of(benchmark_of(file), row) for row in rows_of(file)), records, strict=True))
    reasoning = "reasoning" in file.stem
    verdicts = verdicts_of(responses, read_questions(data), "answer_tag" if reasoning else "official")
    for verdict in verdicts:
        record = theirs[verdict.response.id]
        # The response includes the reasoning, which the log stores separately.
        assert verdict.response.response == record.get("resps", record["filtered_resps"])
        assert not reasoning or verdict.response.response.startswith("<think>")
    differ = {
        verdict.response.id.rpartition("-")[2]
        for verdict in verdicts
        if next(iter(verdict.right.values())) != their_score(theirs[verdict.response.id])
    }
    assert differ <= EXPLAINED.get(file.stem.removeprefix("samples_"), {}).keys()


@pytest.mark.parametrize("file", sorted(LMMS_EVAL.glob("tiny_model_*.jsonl")), ids=lambda file: file.stem)
def test_samples_of_the_tiny_model_are_matched(file: Path, data_of: Mapping[str, Path]) -> None:
    responses = assert_matched(file, "lmms-eval", data_of[benchmark_of(file)])
    assert any("\\boxed{" in response.response for response in responses)


def test_failed_requests_of_lmms_eval_are_not_wrong_answers(data_of: Mapping[str, Path]) -> None:
    file = LMMS_EVAL / "failed_samples_mathvista_testmini_cot_reasoning.jsonl"
    responses, bad = read_harness_file(file, "lmms-eval", read_index(data_of["mathvista"]))
    assert not responses
    assert [(row.line, row.problem) for row in bad] == [(line, "have no response") for line in (1, 2, 3)]
    assert bad[0].why.startswith("mathvista-testmini-102 got no response: [LMMS_EVAL_REQUEST_FAILED after 2 retries]")


def read_changed(
    tmp_path: Path, file: Path, data: Path, change: Mapping[str, Any], order: list[int] | None = None
) -> tuple[list[Response], list[UnusableRow]]:
    """Read a log without image names, with changed keys, and with its rows numbered in another order."""
    records = [json.loads(line) for line in file.read_text().splitlines()]
    for number, record in zip(order or range(len(records)), records, strict=True):
        record.pop("input_media", None)
        record.update(change, doc_id=number)
    changed = tmp_path / "changed.jsonl"
    changed.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return read_harness_file(changed, "lmms-eval", read_index(data))


def test_rows_without_an_id_are_matched_by_text_answer_and_row(tmp_path: Path, data_of: Mapping[str, Path]) -> None:
    for name, task in (("mathvista", "mathvista_testmini_cot"), ("mathverse", "mathverse_testmini")):
        file = LMMS_EVAL / f"samples_{task}_reasoning.jsonl"
        responses, bad = read_changed(tmp_path, file, data_of[name], {})
        assert not bad and responses == assert_matched(file, "lmms-eval", data_of[name])


def test_indistinguishable_questions_in_another_order_are_counted(tmp_path: Path, data_of: Mapping[str, Path]) -> None:
    file = LMMS_EVAL / "samples_mathvista_testmini_cot_reasoning.jsonl"
    responses, bad = read_changed(tmp_path, file, data_of["mathvista"], {}, order=list(range(10))[::-1])
    # Different answers distinguish questions with the same text.
    expected = ["101", "102", "9", "10", "11", "12", "13", "669"]
    assert [response.id.removeprefix("mathvista-testmini-") for response in responses] == expected
    why = (
        "2 questions have its words and its answer, and doc_id follows another order than the data: "
        "mathvista-testmini-7, mathvista-testmini-8"
    )
    assert bad == [UnusableRow(line, "match several questions", why) for line in (3, 4)]

    file = LMMS_EVAL / "samples_mathverse_testmini_reasoning.jsonl"
    responses, bad = read_changed(tmp_path, file, data_of["mathverse"], {}, order=[*range(1, 20), 0])
    # Text Lite and Vision Intensive have the same text, and two problems share the texts of all versions but one.
    assert len(responses) + len(bad) == 20
    assert {row.problem for row in bad} == {"match several questions"}
    texts = [(question.text, question.truth) for question in read_questions(data_of["mathverse"]).values()]
    assert len(responses) == sum(texts.count(text) == 1 for text in texts)


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_without_an_id_are_never_matched_wrongly(data_of: Mapping[str, Path], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["mathvista", "mathverse"]))
    index = read_index(data_of[name])
    ids = list(index.questions)
    # Some questions in the order of the harness, or all questions in another order.
    drawn = sorted(data.draw(st.sets(st.sampled_from(range(len(ids))), min_size=1) | st.just(set(range(len(ids))))))
    questions = {ids[row]: index.questions[ids[row]] for row in drawn}
    order = data.draw(st.permutations(drawn)) if len(drawn) == len(ids) else drawn
    rows = dict(zip(order, questions, strict=True))
    file = LMMS_EVAL / f"samples_{name}_testmini{'_cot' if name == 'mathvista' else ''}_reasoning.jsonl"
    logged = [json.loads(line) for line in file.read_text().splitlines()]
    logged = data.draw(st.lists(st.sampled_from(logged), unique_by=lambda record: record["doc_id"]))
    evidence = [
        Evidence((), "doc_id", str(row), rows.get(row), record["target"], record["input"], counts_rows=True)
        for record in logged
        for row in [record["doc_id"]]
    ]
    for record, match in zip(logged, QuestionIndex(questions, rows, {}).match(evidence), strict=True):
        if isinstance(match, str):
            logged_question = index.questions[ids[record["doc_id"]]]
            matched_question = questions[match]
            assert (matched_question.text, matched_question.truth) == (logged_question.text, logged_question.truth)


def question(text: str, truth: str, choices: tuple[str, ...] | None = None) -> Question:
    return Question("", "wemath", text, "multi_choice", choices, truth, {})


@pytest.mark.parametrize(
    ("prompt", "answer", "expected"),
    [
        # The questions begin alike; the answers are letters of options.
        ("The angle is ( ).\nA. 90; B. 45", "B", "degrees"),
        ("The angle is a ( ).\nA. right one; B. acute one", "B", "kind"),
        # Questions whose options could not be split.
        ("Which point?\nA. Yes, point ;O.;B. No", "A", "O"),
        ("Which point?\nA. Yes, point ;P.;B. No", "A", "P"),
        # Another layout of the prompt, and a wrong answer.
        ("Q: the  angle is ( )\n\nOptions: (A) 90 (B) 45", "B", "degrees"),
        ("Q: the  angle is ( )\n\nOptions: (A) 90 (B) 45", "A", None),
    ],
)
def test_text_options_and_answer_distinguish_questions(prompt: str, answer: str, expected: str | None) -> None:
    index = QuestionIndex(
        {
            "degrees": question("The angle is ( ).\nChoices:\n(A) 90\n(B) 45", "B", ("90", "45")),
            "kind": question(
                "The angle is a ( ).\nChoices:\n(A) right one\n(B) acute one", "B", ("right one", "acute one")
            ),
            "O": question("Which point?\nChoices:\nA. Yes, point ;O.;B. No", "A"),
            "P": question("Which point?\nChoices:\nA. Yes, point ;P.;B. No", "A"),
        },
        {},
        {},
    )
    (match,) = index.match([Evidence(answer=answer, prompt=prompt)])
    assert match == expected if expected else isinstance(match, Unusable) and match.problem == "match no question"


def test_the_problem_version_narrows_questions_with_the_same_text_and_answer(
    tmp_path: Path, data_of: Mapping[str, Path]
) -> None:
    text_lite = [row for row in ROWS["mathverse"] if row["problem_version"] == "Text Lite"]
    rows = [
        {"index": index, **{name: row[name] for name in ("problem_version", "question", "answer")}, "prediction": "x"}
        for index, row in enumerate(text_lite)
    ]
    file = tmp_path / "STANDIN_MathVerse_MINI_Text_Lite.json"
    file.write_text(json.dumps(rows))
    responses, bad = read_harness_file(file, "vlmevalkit", read_index(data_of["mathverse"]))
    # Two of the four problems have the same text and the same answer.
    assert [response.id for response in responses] == ["mathverse-testmini-2", "mathverse-testmini-12"]
    assert [(row.line, row.problem) for row in bad] == [(line, "match several questions") for line in (2, 4)]


def test_an_answer_that_no_question_has_matches_none(tmp_path: Path, data_of: Mapping[str, Path]) -> None:
    file = LMMS_EVAL / "samples_mathvista_testmini_cot_reasoning.jsonl"
    responses, bad = read_changed(tmp_path, file, data_of["mathvista"], {"target": "no answer of any"})
    assert not responses and {row.problem for row in bad} == {"match no question"}
    assert "doc_id '0' is mathvista-testmini-101, but its answer is 'no answer of any'" in bad[0].why


def test_text_only_questions_match_no_other_version(tmp_path: Path, data_of: Mapping[str, Path]) -> None:
    file = LMMS_EVAL / "samples_mathverse_testmini_text_lite.jsonl"
    changed = tmp_path / "samples_mathverse_testmini_text_only.jsonl"
    changed.write_text(file.read_text().replace('"Text Lite"', '"Text_Only"'))
    responses, bad = read_harness_file(changed, "lmms-eval", read_index(data_of["mathverse"]))
    assert not responses
    assert bad[0].why == "no question has problem_index '1', problem_version 'Text_Only'"


@pytest.mark.parametrize("file", sorted(VLMEVALKIT.glob("STANDIN_*")), ids=lambda file: file.name)
def test_rows_of_vlmevalkit_are_matched(file: Path, data_of: Mapping[str, Path]) -> None:
    first = assert_matched(file, "vlmevalkit", data_of[benchmark_of(file)])[0]
    # XlsxWriter writes a form feed as _x000C_, and _x000C_ as _x005F_x000C_.
    if "Text_Lite" not in file.name:
        assert first.response == "\fone\r\ntwo \x1b[1m x_x005F_ _x000C_ \\boxed{x_1}\n"


@pytest.mark.parametrize(
    "name", ["MathVista_MINI", "MathVision", "MathVerse_MINI", "MathVerse_MINI_Text_Lite", "WeMath"]
)
def test_scores_of_vlmevalkit_differ_only_as_explained(name: str, data_of: Mapping[str, Path]) -> None:
    file = VLMEVALKIT / f"STANDIN_{name}.xlsx"
    data = data_of[benchmark_of(file)]
    responses, _ = read_harness_file(file, "vlmevalkit", read_index(data))
    theirs = json.loads((VLMEVALKIT / "verdicts.json").read_text())[name]
    verdicts = verdicts_of(responses, read_questions(data), "official")
    differ = {
        index
        for verdict, (index, right) in zip(verdicts, theirs.items(), strict=True)
        if next(iter(verdict.right.values())) != right
    }
    assert differ == VLMEVALKIT_DIFFERS[name].keys()


@pytest.mark.parametrize("file", sorted((VLMEVALKIT / "judged").iterdir()), ids=lambda file: file.name)
def test_judged_tables_of_vlmevalkit_are_refused(file: Path, data_of: Mapping[str, Path]) -> None:
    responses, bad = read_harness_file(file, "vlmevalkit", read_index(data_of[benchmark_of(file)]))
    assert not responses and {row.problem for row in bad} == {"cannot be read"}
    assert "import its table of predictions" in bad[0].why


def test_reasoning_split_off_by_vlmevalkit_is_restored(data_of: Mapping[str, Path]) -> None:
    file = VLMEVALKIT / "STANDIN_WeMath_COT.xlsx"
    responses, _ = read_harness_file(file, "vlmevalkit", read_index(data_of["wemath"]))
    assert responses[5].response == "<think>\nIt is 5 m.\n</think>\n\nD"
    assert responses[3].response == "(A)"
