"""Importing files of other harnesses: matching rows to questions, scores, and rows that cannot be used."""

import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas
import pytest
from harness_records import (
    SPLITS,
    Record,
    boxed,
    newer_log,
    older_log,
    own_columns,
    own_id,
    predicted,
    rows_of,
    write_lines,
    write_table,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mmupt.benchmarks import Question, read_questions
from mmupt.cli import main
from mmupt.datasets import data_set
from mmupt.evaluation.benchmark_scores import labelled
from mmupt.evaluation.harness_importers import Format, read_harness_file
from mmupt.evaluation.question_matching import QuestionIndex
from mmupt.evaluation.response_files import Response, read_parameters, read_whole, write_responses
from mmupt.evaluation.response_import import import_responses
from mmupt.evaluation.score_files import score_file
from mmupt_data.figure_task import write_figures

StandIn = Callable[..., Path]
ROWS = 8


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A function that prepares rows for a benchmark; MathVerse's rows belong to `ROWS` problems, or to one."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "mmupt_data"))
    from hub_shaped import unchanged, write

    def number_problems(records: list[Record]) -> None:
        for index, record in enumerate(records):
            if "problem_index" in record:
                record["problem_index"] = str(index)

    def make(name: str, problems: int = ROWS) -> Path:
        source = write(tmp_path / "source", name, ROWS, number_problems if problems == ROWS else unchanged)
        data_set(name).prepare(tmp_path / name, str(source))
        return tmp_path / name / f"{SPLITS[name]}.parquet"

    return make


@pytest.fixture
def figures(tmp_path: Path) -> Path:
    write_figures(tmp_path / "figures", train=3, validation=3, test=6)
    return tmp_path / "figures" / "test.parquet"


def imported(file: Path, format_: Format, data: Path) -> list[Response]:
    """Import a file without its unusable rows and return the responses."""
    output = file.parent / "imported" / f"{file.name}.jsonl"
    import_responses(file, format_, data, output, replace=True, skip_bad_rows=True)
    return read_whole(output)


def assert_all_right(file: Path, format_: Format, data: Path) -> None:
    """Assert that every row of a file is imported and scored as correct."""
    output = file.parent / "out" / "responses.jsonl"
    assert import_responses(file, format_, data, output, replace=True) == ROWS
    (scores,) = score_file(output)
    greedy = {name: score.value for name, score in labelled(scores.accuracy).items()}
    assert {f"{scores.rule}, greedy", "own, greedy"} <= greedy.keys() and set(greedy.values()) == {1.0}
    assert scores.not_answered == scores.left_out == 0


@pytest.mark.parametrize("name", SPLITS)
def test_every_format_of_every_benchmark_is_imported_and_scored(name: str, stand_in: StandIn, tmp_path: Path) -> None:
    data = stand_in(name)
    assert_all_right(write_lines(tmp_path / "older.jsonl", rows_of(data, older_log)), "lmms-eval", data)
    assert_all_right(write_lines(tmp_path / "newer.jsonl", rows_of(data, newer_log)), "lmms-eval", data)
    for suffix in ("tsv", "csv", "json"):
        assert_all_right(write_table(tmp_path / f"table.{suffix}", rows_of(data, predicted)), "vlmevalkit", data)
    plain = rows_of(data, lambda _, question: {"id": question.id, "response": boxed(question), "score": 0})
    assert_all_right(write_lines(tmp_path / "plain.jsonl", plain), "jsonl", data)


def test_imported_responses_score_like_generated_responses(figures: Path, tmp_path: Path) -> None:
    responses = [
        Response(id_, "sample", sample, boxed(question) if sample else "no idea", 7)
        for id_, question in read_questions(figures).items()
        for sample in range(3)
    ]
    here = tmp_path / "here.jsonl"
    write_responses(here, responses, {"data": {str(figures): "sha"}})
    lines = [{"id": response.id, "response": response.response, "tokens": 7} for response in responses]
    output = tmp_path / "imported.jsonl"
    import_responses(write_lines(tmp_path / "file.jsonl", lines), "jsonl", figures, output)
    assert read_whole(output) == responses
    assert score_file(output) == score_file(here)


def test_the_parameters_record_the_source_of_an_import(figures: Path, tmp_path: Path) -> None:
    questions = read_questions(figures)
    lines = [{"id": id_, "response": f"<answer>{question.truth}</answer>"} for id_, question in questions.items()]
    file, output = write_lines(tmp_path / "file.jsonl", lines), tmp_path / "runs" / "out.jsonl"
    import_responses(file, "jsonl", figures, output, model="a model", extraction="answer_tag")
    parameters = read_parameters(output)
    assert parameters is not None and parameters["model"] == "a model"
    assert list(parameters["data"]) == [str(figures)] and len(parameters["data"][str(figures)]) == 64
    origin = parameters["imported_from"]
    assert (origin["file"], origin["format"], len(origin["sha256"])) == (str(file), "jsonl", 64)
    # Scoring uses the extraction given at import.
    (scores,) = score_file(output)
    assert scores.accuracy["own"]["greedy"].value == 1.0


def test_lines_of_one_question_are_numbered_samples_by_default(figures: Path, tmp_path: Path) -> None:
    once, several, numbered = list(read_questions(figures))[:3]
    lines = [
        {"id": several, "response": "a"},
        {"id": once, "response": "b"},
        {"id": several, "response": "  "},
        {"id": numbered, "response": "c", "mode": "sample", "sample": 4},
        {"id": several, "response": "d"},
        {"id": numbered, "response": "e", "mode": "greedy", "tokens": 3},
    ]
    assert imported(write_lines(tmp_path / "file.jsonl", lines), "jsonl", figures) == [
        Response(several, "sample", 0, "a"),
        Response(once, "greedy", 0, "b"),
        Response(several, "sample", 1, "  "),
        Response(numbered, "sample", 4, "c"),
        Response(several, "sample", 2, "d"),
        Response(numbered, "greedy", 0, "e", 3),
    ]


def assert_named(err: str, file: Path, expected: Mapping[int, str]) -> None:
    """Assert that stderr names exactly these lines with their reasons."""
    lines = [line for line in err.splitlines() if line.startswith(f"{file}, line")]
    assert len(lines) == len(expected), err
    for line, (number, why) in zip(lines, expected.items(), strict=True):
        assert re.fullmatch(rf"{re.escape(str(file))}, line {number}: .*({why}).*", line), line


def test_each_bad_line_of_a_poisoned_file_is_named_and_the_rest_imported(
    figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = list(read_questions(figures).values())
    good = [json.dumps({"id": question.id, "response": boxed(question)}).encode() for question in questions]
    id_ = questions[0].id
    bad: dict[bytes, str] = {
        good[0][:-20]: "Unterminated|Expecting|Invalid",
        b'{"id": "../../etc/passwd", "response": "x"}': "no question has the id '../../etc/passwd'",
        b'{"id": ["x"], "response": "x"}': "no question has the id",
        b'{"response": "x", "doc_id": 3}': "it has no id, but response, doc_id",
        b'{"id": "\xff"}': "can't decode",
        b"[" * 100_000: "recursion|depth|Expecting",
        b"[1]": "a JSON object",
        json.dumps({"id": id_, "mode": "greedy", "response": 5}).encode(): "response is 5",
        json.dumps({"id": id_, "mode": "greedy", "response": "x"}).encode(): "line 1 has greedy response 0",
        json.dumps({"id": id_, "response": None}).encode(): f"the response to {id_} is null",
        json.dumps({"id": id_, "mode": "beam", "response": "x"}).encode(): "mode is 'beam'",
        json.dumps({"id": id_, "mode": ["greedy"], "response": "x"}).encode(): "mode is",
        json.dumps({"id": id_, "mode": "sample", "sample": True, "response": "x"}).encode(): "sample is True",
        b"": "Expecting value",
    }
    file = tmp_path / "poisoned.jsonl"
    file.write_bytes(b"\n".join([*good, *bad]) + b"\n")
    responses = imported(file, "jsonl", figures)
    assert [response.id for response in responses] == [question.id for question in questions]
    assert_named(capsys.readouterr().err, file, dict(enumerate(bad.values(), start=len(good) + 1)))


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "id": st.sampled_from(["one", "two", "three", None]),
                "response": st.sampled_from(["text", "", None, 1]),
                "mode": st.sampled_from(["greedy", "sample", "beam", None]),
                "sample": st.sampled_from([0, 1, None, "0"]),
            },
        )
    )
)
def test_every_line_is_a_unique_response_or_named(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record]
) -> None:
    question = Question("", "figures", "text", "bars", None, "1", {})
    file = write_lines(tmp_path_factory.mktemp("any") / "file.jsonl", records)
    responses, bad = read_harness_file(file, "jsonl", QuestionIndex({"one": question, "two": question}, {}, {}))
    lines = [row.line for row in bad]
    assert lines == sorted(set(lines)) and len(responses) + len(bad) == len(records)
    assert len({(response.id, response.mode, response.sample) for response in responses}) == len(responses)


def test_each_bad_sample_of_lmms_eval_is_named(
    stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = stand_in("mathvision")
    records = rows_of(data, newer_log)
    first, second = records[:2]
    doc = own_columns(list(read_questions(data).values())[1])
    bad: list[tuple[Record, str]] = [
        (first, "line 1 has greedy response 0"),
        ({**first, "doc_id": ROWS}, f"no question of the data has doc_id '{ROWS}'"),
        ({**first, "doc_id": True}, "doc_id is True, a row number is expected"),
        ({**first, "doc_id": "../0"}, "doc_id is '../0', a row number is expected"),
        ({**first, "target": "8"}, "doc_id '0' is mathvision-test-0, but its answer is '8'"),
        ({**first, "input": "What is x?"}, "doc_id '0' is mathvision-test-0, but it asks something else"),
        ({**first, "doc": doc}, "id '1' is mathvision-test-1, but its answer is '7' and that of the question 'B'"),
        ({**first, "doc": {"id": "900"}}, "no question has id '900'"),
        ({**first, "input": {"until": []}}, "neither the benchmark's id nor both a prompt and an answer"),
        ({**second, "filtered_resps": [None]}, "a response is None"),
        ({**second, "filtered_resps": []}, "neither resps nor filtered_resps"),
        ({**second, "filtered_resps": ["[LMMS_EVAL_BUDGET_EXCEEDED]"]}, "mathvision-test-1 got no response"),
    ]
    file = write_lines(tmp_path / "samples.jsonl", [*records, *(record for record, _ in bad)])
    with file.open("a") as opened:
        opened.write(json.dumps(second)[:-9])
    assert len(imported(file, "lmms-eval", data)) == ROWS
    expected = {number: why for number, (_, why) in enumerate(bad, start=ROWS + 1)}
    assert_named(capsys.readouterr().err, file, {**expected, ROWS + len(bad) + 1: "Expecting|Unterminated|delimiter"})


def test_repeats_of_lmms_eval_are_samples(stand_in: StandIn, tmp_path: Path) -> None:
    data = stand_in("mathvista")
    record = rows_of(data, newer_log)[0]
    for number, resps in enumerate(([["a", "b", "c"]], [["a"], ["b"], ["c"]])):
        file = write_lines(tmp_path / f"{number}.jsonl", [{**record, "resps": resps, "filtered_resps": ["a"]}])
        responses = imported(file, "lmms-eval", data)
        assert [(response.mode, response.sample, response.response) for response in responses] == [
            ("sample", 0, "a"),
            ("sample", 1, "b"),
            ("sample", 2, "c"),
        ]


def test_each_bad_row_of_vlmevalkit_is_named(
    stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = stand_in("mathvista")
    records = rows_of(data, predicted)
    first = records[0]
    bad: list[tuple[Record, str]] = [
        (first, "line 2 has greedy response 0"),
        ({**first, "index": "../../etc/passwd"}, "no question of the data has index '../../etc/passwd'"),
        ({**first, "answer": "8"}, "index '1' is mathvista-testmini-1, but its answer is '8'"),
        ({**first, "question": "What is x?"}, "index '1' is mathvista-testmini-1, but it asks something else"),
        ({**first, "question": ""}, "neither the benchmark's id nor both a prompt and an answer"),
        ({**first, "prediction": "Failed to obtain answer via API."}, "got no response: Failed"),
        ({**first, "prediction": "Fail to obtain answer via API."}, "got no response: Fail"),
    ]
    file = write_table(tmp_path / "model_MathVista_MINI.tsv", [*records, *(record for record, _ in bad)])
    expected = {number: why for number, (_, why) in enumerate(bad, start=ROWS + 2)}
    assert len(imported(file, "vlmevalkit", data)) == ROWS
    assert_named(capsys.readouterr().err, file, expected)
    cut = file.read_text().rindex("Fail")
    file.write_text(file.read_text()[:cut])
    assert len(imported(file, "vlmevalkit", data)) == ROWS
    assert_named(capsys.readouterr().err, file, {**expected, ROWS + len(bad) + 1: "unexpected end of data"})


def test_ambiguous_ids_fall_back_to_the_next_column(stand_in: StandIn, tmp_path: Path) -> None:
    data = stand_in("mathverse", problems=1)
    # Some rows share problem and version, so only `sample_index` identifies them.
    records = rows_of(data, predicted)
    for record, question in zip(records, read_questions(data).values(), strict=True):
        record["sample_index"] = own_id(question)
    assert_all_right(write_table(tmp_path / "model_MathVerse_MINI.tsv", records), "vlmevalkit", data)


def test_an_xlsx_is_read_except_for_truncated_predictions(
    stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = stand_in("mathvista")
    records = rows_of(data, predicted)
    file = tmp_path / "model_MathVista_MINI.xlsx"
    pandas.DataFrame(records).to_excel(file, index=False, engine="xlsxwriter")
    assert_all_right(file, "vlmevalkit", data)
    records[1]["prediction"] = "x" * 32_767
    records[2]["prediction"] = None
    pandas.DataFrame(records).to_excel(file, index=False, engine="xlsxwriter")
    responses = imported(file, "vlmevalkit", data)
    # An empty prediction is an empty response and counts as wrong.
    assert len(responses) == ROWS - 1 and responses[1].response == ""
    assert_named(capsys.readouterr().err, file, {3: "ends with the cell"})
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="is not an xlsx file, or was cut"):
        imported(file, "vlmevalkit", data)


# XlsxWriter itself loses overlapping escapes, noncharacters, and texts that look like links.
LOST = re.compile(r"_x[0-9A-Fa-f]{4}_?x[0-9A-Fa-f]{4}_|[\ufffe\uffff]|^(?:mailto|internal|external|https?|ftp|file):")
FRAGMENTS = st.sampled_from(
    ["_x000C_", "_x005F_", "_x000c_", "x005F_", "\f", "\r\n", "\x00", "=1", "_", " ", "\\boxed{x_1}"]
)


@given(st.lists(st.lists(FRAGMENTS | st.text(max_size=3), max_size=5).map("".join), min_size=1))
@settings(max_examples=10)
def test_responses_survive_xlsx(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    texts = [text for text in texts if not LOST.search(text)] or [""]
    questions = {
        f"mathvista-testmini-{number}": Question("", "mathvista", f"How many {number}?", "free_form", None, "1", {})
        for number in range(len(texts))
    }
    index = QuestionIndex(questions, {}, dict.fromkeys(questions, "testmini"))
    file = tmp_path_factory.mktemp("any") / "table.xlsx"
    table = pandas.DataFrame({"pid": range(len(texts)), "prediction": texts})
    options = {"options": {"strings_to_formulas": False}}
    with pandas.ExcelWriter(file, engine="xlsxwriter", engine_kwargs=options) as writer:
        table.to_excel(writer, index=False)
    responses, bad = read_harness_file(file, "vlmevalkit", index)
    assert not bad and [response.response for response in responses] == texts


def test_a_missing_xlsx_reader_is_an_error_with_the_fix(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = stand_in("mathvista")
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    (tmp_path / "table.xlsx").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"pip install python-calamine.*PRED_FORMAT=tsv"):
        imported(tmp_path / "table.xlsx", "vlmevalkit", data)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        (
            "table.pkl",
            b"cos\nsystem\n(S'touch run'\ntR.",
            "a pickle is not read, because it can run any code.* Convert your own pickle to JSON",
        ),
        ("table.pt", b"", r"a table of VLMEvalKit is a \.xlsx"),
        ("table.json", b'[{"index": 1, "pred', "is not JSON, or was cut"),
        ("table.json", b'{"index": [1]}', "is not a list of rows"),
        ("table.tsv", b"", "has no response to a question of"),
        ("table.tsv", b"\x00\xff\n\x00", "after line 1, is not UTF-8"),
        ("table.tsv", b"index\tquestion\n1\tx\n", r"has no response to a question of .*1 cannot be read"),
    ],
)
def test_an_unreadable_table_is_refused(figures: Path, tmp_path: Path, name: str, content: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=why):
        imported(tmp_path / name, "vlmevalkit", figures)
    assert not Path("run").exists()


def test_an_existing_output_needs_replace(figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    id_ = next(iter(read_questions(figures)))
    file, output = write_lines(tmp_path / "file.jsonl", [{"id": id_, "response": "new"}]), tmp_path / "out.jsonl"
    write_responses(output, [Response(id_, "greedy", 0, "old")], {"data": {}})
    command = ["import-responses", str(file), "--format", "jsonl", "--data", str(figures), "--output", str(output)]
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == f"error: {output} is there already: name another --output, or --replace it"
    assert read_whole(output)[0].response == "old"
    assert main([*command, "--replace"]) == 0
    assert capsys.readouterr().out == f"{output}: 1 response\n"
    assert read_whole(output)[0].response == "new"


def test_bad_rows_are_counted_and_refused_unless_skipped(
    figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    id_ = next(iter(read_questions(figures)))
    lines = [{"id": id_, "response": "a"}, {"id": "x", "response": "b"}, {"id": "y", "response": "c"}, {"id": id_}]
    file, output = write_lines(tmp_path / "file.jsonl", lines), tmp_path / "out.jsonl"
    with pytest.raises(ValueError, match=r"3 rows cannot be used \(2 match no question, 1 cannot be read\) beside 1"):
        import_responses(file, "jsonl", figures, output)
    assert not output.exists()
    why = "no question has the id '{}'; ids of the data are like 'figures-"
    assert_named(
        capsys.readouterr().err, file, {2: why.format("x"), 3: why.format("y"), 4: "it has no response, but id"}
    )
    assert import_responses(file, "jsonl", figures, output, skip_bad_rows=True) == 1
    parameters = read_parameters(output)
    assert parameters and parameters["imported_from"]["skipped_rows"] == {"match no question": 2, "cannot be read": 1}


def test_a_missing_file_or_a_folder_is_named(figures: Path, tmp_path: Path) -> None:
    for file, what in ((tmp_path / "nowhere.jsonl", "missing"), (tmp_path, "a folder")):
        with pytest.raises(ValueError, match=f"{file} is {what}: name a file of the other program"):
            import_responses(file, "jsonl", figures, tmp_path / "out.jsonl")


def test_a_file_without_usable_lines_leaves_no_output(figures: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "file.jsonl", [{"id": "x", "response": "y"}])
    with pytest.raises(ValueError, match=r"file\.jsonl has no response to a question of .*test\.parquet"):
        import_responses(file, "jsonl", figures, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
