"""Our scores beside the paper's: the score shown per benchmark, averages, and the paper's rows."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmupt.benchmarks import BENCHMARKS, read_questions, rule_version
from mmupt.benchmarks.paper_scores import read_paper
from mmupt.cli import main
from mmupt.evaluation.benchmark_scores import BenchmarkScores, StoredScore
from mmupt.evaluation.paper_results import average_of, cell_of, results_content, results_plot, results_table
from mmupt.evaluation.report_results import read_scores
from mmupt.evaluation.response_files import Response, write_responses
from mmupt.evaluation.score_files import score_file
from mmupt_data.figure_task import write_figures

PAPER = read_paper()
FOUR = list(PAPER.titles)


def scores(
    benchmark: str, value: float, error: float = 0.01, questions: int | None = None, **further: float
) -> BenchmarkScores[StoredScore]:
    """Scores over all questions of the paper's benchmark; `value` is greedy accuracy, `further` other scores."""
    questions = questions or PAPER.questions.get(benchmark, 8)
    rules = BENCHMARKS[benchmark].rules if benchmark in BENCHMARKS else ()
    leading = rules[0].name if rules else "own"
    accuracy: dict[str, dict[str, StoredScore]] = {}
    for name, accuracy_value in {f"{leading}, greedy": value, **further}.items():
        rule, _, measure = name.rpartition(", ")
        accuracy.setdefault(rule, {})[measure] = StoredScore(accuracy_value, error, questions)
    return BenchmarkScores(benchmark, leading, {leading: 2}, questions, 0, 0, 0, 0.0, accuracy)


def row(table: str, first: str) -> list[str]:
    """The cells of the row that begins with `first`."""
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {first} ")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_rows_of_the_paper_are_complete_and_their_averages_match_their_columns() -> None:
    assert [PAPER.titles[name] for name in FOUR] == ["MathVision", "MathVerse", "MathVista", "We-Math"]
    for entry in PAPER.rows:
        if entry.scores:
            assert entry.average == pytest.approx(sum(entry.scores) / 4, abs=0.0051)
    assert PAPER.base.name == "Qwen2.5-VL-7B" and PAPER.headline.name == "MM-UPT (MMR1)"
    data_sets = ("Geometry3K", "GeoQA")
    methods = [{entry.method for entry in PAPER.rows if entry.trained_on == data_set} for data_set in data_sets]
    assert [len({entry.trained_on for entry in PAPER.rows}), *map(len, methods)] == [4, 9, 9]
    assert len(PAPER.rows) == len({entry.name for entry in PAPER.rows}) == 28


def test_the_shown_score_prefers_the_mean_of_samples_and_the_leading_rule() -> None:
    figures = {"own, greedy": 0.1, "own, mean@4": 0.2, "official, mean@4": 0.3, "official, pass@4": 0.4}
    assert cell_of(scores("wemath", 0.5, **figures))[:2] == ("official, mean@4", 0.3)
    assert cell_of(scores("wemath", 0.5, **{"own, mean@4": 0.2}))[:2] == ("official, greedy", 0.5)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.1)), min_size=4, max_size=4), st.permutations(FOUR))
def test_an_average_lies_within_its_columns_and_does_not_depend_on_their_order(
    values: list[tuple[float, float]], order: list[str]
) -> None:
    by_benchmark = {name: cell_of(scores(name, *score)) for name, score in zip(FOUR, values, strict=True)}
    average = average_of({name: by_benchmark[name] for name in order})
    assert average is not None and average == average_of(by_benchmark)
    assert min(values)[0] - 1e-9 <= average.value <= max(values)[0] + 1e-9
    errors = [error for _, error in values]
    assert max(errors) / 4 - 1e-9 <= average.standard_error <= max(errors) / 2 + 1e-9
    for name in FOUR:
        assert average_of({other: cell for other, cell in by_benchmark.items() if other != name}) is None


def test_our_rows_have_the_papers_columns_with_rule_and_measure() -> None:
    ours = {name: scores(name, value) for name, value in zip(reversed(FOUR), (0.6, 0.7, 0.4, 0.3), strict=True)}
    table = results_table({"trained": ours})
    assert row(table, "trained") == [
        "trained",
        "",
        "30.00 ± 1.00 (official, greedy)",
        "40.00 ± 1.00 (rule-based, greedy)",
        "70.00 ± 1.00 (cleaned official, greedy)",
        "60.00 ± 1.00 (official, greedy)",
        "50.00 ± 0.50",
    ]
    assert row(table, "paper: Qwen2.5-VL-7B") == [
        "paper: Qwen2.5-VL-7B",
        "",
        "24.87",
        "43.83",
        "66.30",
        "62.87",
        "49.47",
    ]
    assert "| paper: MM-UPT " in table and "arXiv 2505.22453v2" in table
    content = results_content({"trained": ours})
    assert content["evaluations"]["trained"]["average"]["value"] == pytest.approx(0.5)
    assert len(content["paper"]["rows"]) == len(PAPER.rows)


def test_missing_benchmarks_are_empty_and_other_benchmarks_get_their_own_columns() -> None:
    table = results_table({"a": {"mathvista": scores("mathvista", 0.7)}, "b": {"figures": scores("figures", 0.9)}})
    assert row(table, "a")[2:] == ["", "", "70.00 ± 1.00 (cleaned official, greedy)", "", "", ""]
    assert row(table, "b")[2:] == ["", "", "", "", "", "90.00 ± 1.00 (own, greedy)"]
    assert row(table, "paper: Qwen2.5-VL-7B")[-1] == ""
    assert table.endswith("Versions of the rules: figures own 2, mathvista cleaned official 2.")


def test_a_partial_benchmark_is_labelled() -> None:
    part = scores("mathvision", 0.5, questions=304)
    assert row(results_table({"a": {"mathvision": part}}), "a")[2] == (
        "50.00 ± 1.00 (official, greedy, 304 of 3,040 questions)"
    )


def test_special_characters_in_names_break_neither_table_nor_plot() -> None:
    ours = {"a|b\n`$\\frac\\": {"<b>$\\frac": scores("<b>$\\frac", 0.5), "mathvista": scores("mathvista", 0.5)}}
    table = results_table(ours)
    # A pipe ends a cell unless an odd number of backslashes precedes it.
    cells = [re.sub(r"\\.", "", line).count("|") for line in table.splitlines() if line.startswith("|")]
    assert set(cells) == {9}
    assert results_plot(ours).startswith(b"\x89PNG")


@pytest.fixture
def evaluations(tmp_path: Path) -> list[Path]:
    write_figures(tmp_path / "figures", train=3, validation=3, test=6)
    data = tmp_path / "figures" / "test.parquet"
    for name, right in (("base", 3), ("trained", 6)):
        responses = [
            Response(id_, "sample", sample, f"so \\boxed{{{question.truth if number < right else 999}}}", 5)
            for number, (id_, question) in enumerate(read_questions(data).items())
            for sample in range(2)
        ]
        write_responses(tmp_path / name / "figures.jsonl", responses, {"model": name, "data": {str(data): "sha"}})
    return [tmp_path / "base", tmp_path / "trained"]


def test_the_command_scores_folders_and_writes_markdown_json_and_a_plot(
    evaluations: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main(["report", "--paper", *map(str, evaluations), "--output", str(output)]) == 0
    table = capsys.readouterr().out.strip()
    assert table in (output / "results.md").read_text()
    assert row(table, "base")[-1] == "50.00 ± 22.36 (own, mean@2)"
    content = json.loads((output / "results.json").read_text())
    assert content["evaluations"]["trained"]["benchmarks"]["figures"]["value"] == 1.0
    assert content["evaluations"]["trained"]["average"] is None
    assert content["paper"]["rows"][1]["scores"]["wemath"] == 68.74
    assert (output / "results.png").read_bytes().startswith(b"\x89PNG")


def test_saved_scores_are_reused_unless_the_responses_are_newer(evaluations: list[Path]) -> None:
    def share_without_answer() -> float:
        return read_scores(evaluations)["base"]["figures"].no_answer

    assert share_without_answer() == 0.0
    saved = evaluations[0] / "figures.scores.json"
    saved.write_text(saved.read_text().replace('"no_answer": 0.0', '"no_answer": 0.5'))
    assert share_without_answer() == 0.5
    os.utime(evaluations[0] / "figures.jsonl", (2**32, 2**32))
    assert share_without_answer() == 0.0


def test_scores_by_a_judge_are_never_replaced(evaluations: list[Path]) -> None:
    read_scores(evaluations)
    saved = evaluations[0] / "figures.scores.json"
    saved.write_text(saved.read_text().replace('"own', '"judge it'))
    assert rule_version("figures", "judge it") == rule_version("figures", "own")
    assert read_scores(evaluations)["base"]["figures"].rule == "judge it"
    os.utime(evaluations[0] / "figures.jsonl", (2**32, 2**32))
    with pytest.raises(ValueError, match="older than the responses, by 'judge it': run `mmupt score"):
        read_scores(evaluations)
    assert '"judge it' in saved.read_text()


def test_scores_by_another_version_of_a_rule_are_recomputed(evaluations: list[Path]) -> None:
    def value_of_base() -> float:
        return cell_of(read_scores(evaluations)["base"]["figures"]).value

    file = evaluations[0] / "figures.jsonl"
    (current,) = score_file(file)
    saved = file.with_suffix(".scores.json")
    mean = current.accuracy["own"]["mean@2"]
    accuracy = {"own": {"mean@2": StoredScore(9.0, 0.0, mean.questions)}}
    older = replace(current, versions={"own": 1}, accuracy=accuracy).to_json()
    other_schemas = [
        {name: value for name, value in older.items() if name != "versions"},
        {**older, "accuracy": {"own, mean@2": {"value": 9.0, "standard_error": 0.0, "questions": 6}}},
        {**older, "f1": 1.0},
    ]
    for outdated in (older, *other_schemas):
        saved.write_text(json.dumps([outdated]))
        assert value_of_base() == mean.value
    saved.write_text(json.dumps([{**older, "rule": "judge it", "versions": {"judge it": 1}}]))
    with pytest.raises(ValueError, match="another version of the rule 'judge it'"):
        read_scores(evaluations)


def test_folders_of_the_same_name_are_distinguished_and_two_files_of_a_benchmark_refused(
    evaluations: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    evaluations[1].rename(tmp_path / "other" / "base")
    both = [evaluations[0], tmp_path / "other" / "base"]
    assert list(read_scores(both)) == list(map(str, both))
    for suffix in (".jsonl", ".parameters.json"):
        (both[0] / f"again{suffix}").write_bytes((both[0] / "figures").with_suffix(suffix).read_bytes())
    with pytest.raises(ValueError, match=r"figures\.jsonl is a second file that answers figures"):
        read_scores(both)
