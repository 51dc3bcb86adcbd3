"""Run reports: values calculated by hand, series, notes, and files that are missing or differ."""

import json
import re
from pathlib import Path

import pytest
from finished_runs import write_events
from matplotlib.axes import Axes

from mmupt.cli import main
from mmupt.evaluation.response_files import Response, read_parameters, write_responses
from mmupt.training.metric_series import read_series
from mmupt.training.run_report import CURVES, _lines, read_changes, write_report
from mmupt_data.row_schema import Row, prompts_path
from mmupt_data.writer import write_dataset
from verl_ext.metric_names import VALIDATION_ACCURACY

pytestmark = pytest.mark.usefixtures("undrawn")

TRUTH = {"q1": "1", "q2": "2", "q3": "3", "q4": "4"}
BEFORE = {  # A greedy answer, then four samples.
    "q1": ["1", "1", "1", "9", "9"],
    "q2": ["9", "2", "2", "2", None],
    "q3": ["9", "9", "9", "3", "8"],
    "q4": [None, "9", "8", "7", None],
}
AFTER = {
    "q1": ["1", "1", "1", "1", "9"],
    "q2": ["2", "2", "2", "2", "2"],
    "q3": ["3", "3", "3", "9", "8"],
    "q4": ["9", "9", "9", "7", "7"],
}


def responses(answers: dict[str, list[str | None]], tokens: int) -> list[Response]:
    """Responses with these answers per question: a greedy answer, then samples, each a token longer than the last."""
    texts = {id_: ["no idea" if a is None else f"so \\boxed{{{a}}}" for a in row] for id_, row in answers.items()}
    greedy = [Response(id_, "greedy", 0, row[0], tokens) for id_, row in texts.items()]
    sampled = [
        Response(id_, "sample", sample, text, tokens + sample)
        for id_, row in texts.items()
        for sample, text in enumerate(row[1:])
    ]
    return greedy + sampled


def write_questions(folder: Path, *rows: Row) -> Path:
    """Write the four questions, replaced by `rows` with the same ids, and return the file."""
    plain = {id_: Row(id_, "made-up", f"what is {id_} ?", (), "a", answer) for id_, answer in TRUTH.items()}
    write_dataset(folder, {"test": [*(plain | {row.id: row for row in rows}).values()]}, {"rows": repr(rows)})
    return prompts_path(folder, "test")


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    data = write_questions(tmp_path)
    run = tmp_path / "run"
    parameters = {"data": {str(data): "sha"}, "samples": 4, "temperature": 1.0}
    write_responses(run / "evaluation" / "before.jsonl", responses(BEFORE, 5), {"model": "base", **parameters})
    write_responses(run / "evaluation" / "after.jsonl", responses(AFTER, 9), {"model": "trained", **parameters})
    return run


def test_the_letter_and_the_text_of_an_option_are_the_same_answer(run_folder: Path, tmp_path: Path) -> None:
    def lettered(answers: dict[str, list[str | None]]) -> dict[str, list[str | None]]:
        return {**answers, "q1": ["B" if answer == "1" else answer for answer in answers["q1"]]}

    expected = read_changes(run_folder)["mean@4"].after
    row = Row("q1", "made-up", "what ?", (), "a", "1", choices=("9", "1"))
    write_questions(tmp_path, row)
    for name, answers in (("before", BEFORE), ("after", AFTER)):
        file = run_folder / "evaluation" / f"{name}.jsonl"
        write_responses(file, responses(lettered(answers), 5), read_parameters(file) or {})
    assert read_changes(run_folder)["mean@4"].after == expected


def test_each_benchmark_is_scored_with_its_own_rule_and_named(run_folder: Path, tmp_path: Path) -> None:
    # MathVista compares strings after it has rounded the answer to the precision of the ground truth.
    metadata = {"answer_type": "float", "precision": 1, "metadata": {}}
    rows = [
        Row(id_, "mathvista", f"what is {id_} ?", (), "free_form", "1.2", metadata=metadata) for id_ in ("q1", "q2")
    ]
    write_questions(tmp_path, *rows)
    for name, answers in (("before", BEFORE), ("after", AFTER)):
        file = run_folder / "evaluation" / f"{name}.jsonl"
        rounded = {**answers, "q1": ["1.17"] * 5, "q2": ["1.12"] * 5}
        write_responses(file, responses(rounded, 5), read_parameters(file) or {})
    changes = read_changes(run_folder)
    assert changes["greedy accuracy, mathvista"].before.per_question == (1.0, 0.0)
    assert changes["greedy accuracy, made-up"].after.per_question == (1.0, 0.0)


def test_the_table_has_the_values_calculated_by_hand(run_folder: Path) -> None:
    lines = [line.split("|") for line in write_report(run_folder).split("\n")]
    rows = {cells[1].strip(): [cell.strip() for cell in cells[2:5]] for cells in lines}
    # With four questions, the standard error is half the standard deviation.
    assert rows["greedy accuracy, %"] == ["25.0 ± 25.0", "75.0 ± 25.0", "+50.0 ± 28.9"]  # differences 0 1 1 0
    assert rows["mean@4, %"] == ["37.5 ± 16.1", "56.2 ± 21.3", "+18.8 ± 6.2"]  # .5 .75 .25 0 -> .75 1 .5 0
    assert rows["maj@4, %"] == ["25.0 ± 25.0", "75.0 ± 25.0", "+50.0 ± 28.9"]  # 0 (tied) 1 0 0 -> 1 1 1 0
    assert rows["pass@4, %"] == ["75.0 ± 25.0", "75.0 ± 25.0", "+0.0 ± 0.0"]
    # Cluster sizes per question: (2, 2), (3, 1), (2, 1, 1), (1, 1, 1, 1) -> (3, 1), (4), (2, 1, 1), (2, 2).
    assert rows["semantic entropy, nats"] == ["0.92 ± 0.19", "0.57 ± 0.22", "-0.35 ± 0.17"]
    assert rows["response length, tokens"] == ["6.5 ± 0.0", "10.5 ± 0.0", "+4.0 ± 0.0"]


def test_a_single_sample_has_all_scores_but_a_majority(run_folder: Path) -> None:
    for name, answers in (("before", BEFORE), ("after", AFTER)):
        file = run_folder / "evaluation" / f"{name}.jsonl"
        first_sample = {id_: group[:2] for id_, group in answers.items()}
        write_responses(file, responses(first_sample, 5), {**(read_parameters(file) or {}), "samples": 1})
    scores = json.loads((run_folder / "report.json").read_text())["scores"] if write_report(run_folder) else {}
    assert {"greedy accuracy", "mean@1", "pass@1"} <= scores.keys() and "maj@1" not in scores


def test_the_report_states_that_and_why_a_run_was_stopped(run_folder: Path) -> None:
    assert "collapse" not in write_report(run_folder)
    (run_folder / "collapse.json").write_text(json.dumps({"message": "The run collapsed.", "step": 15}))
    write_report(run_folder)
    assert "\n\n**The run collapsed.**\n\n" in (run_folder / "report.md").read_text()
    assert json.loads((run_folder / "report.json").read_text())["collapse"]["step"] == 15


def test_the_report_has_a_section_about_votes(run_folder: Path) -> None:
    write_report(run_folder)
    assert "## Votes" not in (run_folder / "report.md").read_text()
    write_events(run_folder / "tensorboard", 0, {"vote/reward_accuracy": {1: 0.5, 2: 0.25, 3: 0.005}})
    write_report(run_folder)
    assert "| step 3" in (run_folder / "report.md").read_text().split("## Votes")[1]
    votes = json.loads((run_folder / "report.json").read_text())["votes"]
    assert votes["model_collapse_step"] == 3 and votes["elections"] == 0


def test_the_report_states_whether_the_run_was_trained_on_its_test_questions(run_folder: Path) -> None:
    for test_time_training in (False, True):
        (run_folder / "config.yaml").write_text(f"mmupt: {{test_time_training: {test_time_training}}}")
        write_report(run_folder)
        text = (run_folder / "report.md").read_text()
        assert ("These are not scores on unseen questions" in text) is test_time_training
        assert json.loads((run_folder / "report.json").read_text())["test_time_training"] is test_time_training


def test_the_plot_has_a_line_for_every_validated_data_source() -> None:
    series = {f"val-core/set_{number}/acc/mean@1": {1: 0.5} for number in range(6)}
    assert all(re.fullmatch(VALIDATION_ACCURACY, name) for name in series)
    assert [points.label for points in _lines(CURVES[0], series)] == [
        f"validation questions (set_{number})" for number in range(6)
    ]


def test_the_report_is_written_as_markdown_json_and_a_plot(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Draw the plot.
    monkeypatch.undo()
    write_events(run_folder / "tensorboard", 0, {"vote/majority_ratio": {1: 0.5, 2: 0.625}, "actor/lr": {1: 1.0}})
    table = write_report(run_folder, note="It learned no new skill.")
    text = (run_folder / "report.md").read_text()
    assert table in text
    assert "It learned no new skill." in text
    assert "(report.png)" in text
    content = json.loads((run_folder / "report.json").read_text())
    assert content["questions"] == 4
    assert content["scores"]["mean@4"]["difference"]["value"] == pytest.approx(0.1875)
    assert content["scores"]["mean@4"]["before"]["standard_error"] == pytest.approx(0.16137, abs=1e-5)
    assert content["series"] == {"vote/majority_ratio": [[1, 0.5], [2, 0.625]]}
    assert (run_folder / "report.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(file.name for file in run_folder.glob("report*")) == ["report.json", "report.md", "report.png"]


def test_a_data_file_that_changed_since_the_responses_is_named(run_folder: Path, tmp_path: Path, capsys) -> None:
    write_report(run_folder)
    assert f"{tmp_path / 'test.parquet'} has changed since these responses" in capsys.readouterr().out


def test_the_command_prints_the_table_and_takes_the_note_from_the_run(run_folder: Path, capsys) -> None:
    (run_folder / "config.yaml").write_text("mmupt: {report_note: The vote chose a style.}\n")
    assert main(["report", str(run_folder)]) == 0
    assert "| greedy accuracy, %" in capsys.readouterr().out
    assert "The vote chose a style." in (run_folder / "report.md").read_text()


def test_the_later_value_of_a_step_that_a_resumed_run_repeated_counts(tmp_path: Path) -> None:
    # The file of the resumed run sorts first, so the order of names cannot decide.
    write_events(tmp_path / "b", 1000, {"vote/majority_ratio": {1: 0.125, 2: 0.25, 3: 0.375}})
    write_events(tmp_path / "a", 2000, {"vote/majority_ratio": {3: 0.5, 4: 0.625}})
    assert read_series(tmp_path) == {"vote/majority_ratio": {1: 0.125, 2: 0.25, 3: 0.5, 4: 0.625}}


def test_a_long_run_keeps_all_of_its_steps(tmp_path: Path) -> None:
    write_events(tmp_path, 0, {"response_length/mean": {step: float(step) for step in range(12_000)}})
    assert len(read_series(tmp_path)["response_length/mean"]) == 12_000


def test_validation_accuracies_are_read_for_any_data_source_and_number_of_samples(tmp_path: Path) -> None:
    names = ["val-core/figures/acc/mean@1", "val-core/org/other set/acc/mean@10", "val-core/figures/acc/maj@10/mean"]
    write_events(tmp_path, 0, {name: {0: 0.5} for name in names})
    assert set(read_series(tmp_path)) == set(names[:2])
    assert [re.fullmatch(VALIDATION_ACCURACY, name)[1] for name in names[:2]] == ["figures", "org/other set"]


def test_panels_of_a_run_without_event_files_say_not_recorded(run_folder: Path, monkeypatch) -> None:
    texts = []
    original = Axes.text

    def text(axes: Axes, x: float, y: float, s: str, **style: object) -> object:
        texts.append(s)
        return original(axes, x, y, s, **style)

    monkeypatch.setattr(Axes, "text", text)
    write_report(run_folder)
    assert texts == ["not recorded"] * len(CURVES)
    assert json.loads((run_folder / "report.json").read_text())["series"] == {}


@pytest.mark.parametrize("name", ["before.jsonl", "after.jsonl", "before.parameters.json", "after.parameters.json"])
def test_a_missing_evaluation_is_named_with_the_command_that_makes_it(run_folder: Path, name: str) -> None:
    (run_folder / "evaluation" / name).unlink()
    file = run_folder / "evaluation" / f"{name.split('.')[0]}.jsonl"
    with pytest.raises(FileNotFoundError, match=re.escape(f"{file} with its parameters is missing")) as error:
        write_report(run_folder)
    assert "`mmupt eval model=MODEL" in str(error.value)
    assert not (run_folder / "report.md").exists()


def test_a_missing_ground_truth_is_named(run_folder: Path) -> None:
    (run_folder.parent / "test.truth.parquet").unlink()
    with pytest.raises(ValueError, match=r"test\.truth\.parquet: no ground truth for 4 of 4 rows, for example q1"):
        write_report(run_folder)


def test_a_response_to_an_unknown_question_is_named(run_folder: Path) -> None:
    file = run_folder / "evaluation" / "after.jsonl"
    write_responses(file, responses({"q9": AFTER["q1"]}, 5), read_parameters(file) or {})
    with pytest.raises(ValueError, match=r"after\.jsonl, line 1, cannot be scored: no question has the id 'q9'"):
        write_report(run_folder)


def test_a_question_without_its_greedy_response_is_named(run_folder: Path) -> None:
    file = run_folder / "evaluation" / "after.jsonl"
    write_responses(file, responses(AFTER, 5)[1:], read_parameters(file) or {})
    with pytest.raises(ValueError, match="question q1 has 0 greedy responses"):
        write_report(run_folder)


def test_evaluations_with_different_parameters_are_not_compared(run_folder: Path) -> None:
    after = run_folder / "evaluation" / "after.jsonl"
    parameters = json.loads(after.with_suffix(".parameters.json").read_text())
    write_responses(after, responses(AFTER, 9), {**parameters, "temperature": 0.7})
    with pytest.raises(ValueError, match="their parameters differ in temperature"):
        write_report(run_folder)


def with_settings(run_folder: Path, **settings: object) -> dict[str, float]:
    """Return the scores after training when the evaluations of the run record these settings."""
    for name in ("before", "after"):
        file = run_folder / "evaluation" / f"{name}.parameters.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    return {name: change.after.value for name, change in read_changes(run_folder).items()}


def test_answers_are_extracted_with_the_settings_of_the_run(run_folder: Path) -> None:
    # All answers are in boxes.
    assert with_settings(run_folder, extraction="answer_tag")["pass@4"] == 0.0


def test_answers_are_compared_with_the_rule_of_the_run(run_folder: Path, tmp_path: Path) -> None:
    write_questions(tmp_path, Row("q1", "made-up", "what ?", (), "a", "No."))
    for name, answers in (("before", BEFORE), ("after", AFTER)):
        file = run_folder / "evaluation" / f"{name}.jsonl"
        # "no" and "No." are equal by the canonical rule and different by mathruler.
        write_responses(file, responses({**answers, "q1": ["no"] * 5}, 5), read_parameters(file) or {})
    canonical, mathruler = (with_settings(run_folder, rule=rule) for rule in ("canonical", "mathruler"))
    assert canonical["greedy accuracy"] - mathruler["greedy accuracy"] == 0.25
    assert canonical["maj@4"] - mathruler["maj@4"] == 0.25


def test_an_unknown_rule_is_named_with_its_file(run_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"before\.parameters\.json: rule='mathrulr' is none of canonical"):
        with_settings(run_folder, rule="mathrulr")
