"""Vote files: the content of a row, the choice of groups to keep, and kills and resumes."""

import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_ext.votes import vote, vote_files
from verl_ext.votes.vote_files import (
    METADATA_KEY,
    SCHEMA,
    GroupOnFile,
    VotedQuestion,
    VotedResponse,
    VoteFiles,
    files_of_steps,
    read_train_files,
    read_votes,
    write_votes,
)
from verl_ext.votes.vote_record import VoteRecord


def group(id_: str = "q1", answers: tuple[str | None, ...] = ("7", "7.0", "3", None)) -> GroupOnFile:
    """A group with ground truth 3, whose last response only votes."""
    result = vote(answers)
    responses = [
        VotedResponse(f"It is {answer}.", answer, reward, number < len(answers) - 1, answer == "3")
        for number, (answer, reward) in enumerate(zip(answers, result.rewards, strict=True))
    ]
    record = VoteRecord(result, 0.5, label_correct=False)
    return GroupOnFile(VotedQuestion(id_, "Find x.", 1, None, "3", responses), record, (4, 5))


def ids(folder: Path) -> dict[int, list[str]]:
    return {step: [row["id"] for row in read_votes(file)] for step, file in files_of_steps(folder).items()}


def test_a_row_holds_the_responses_their_classes_and_the_outcome_of_the_vote(tmp_path: Path) -> None:
    write_votes(tmp_path / "12.parquet", [group().row(12)], ["/data/train.parquet"])
    (row,) = read_votes(tmp_path / "12.parquet")
    responses = row.pop("responses")
    assert row == {
        "step": 12,
        "first_policy": 4,
        "last_policy": 5,
        "id": "q1",
        "question": "Find x.",
        "images": 1,
        "choices": None,
        "pseudo_label": "7",
        "majority_ratio": 0.5,
        "tied": False,
        "no_answer": 1,
        "ground_truth": "3",
        "label_correct": False,
    }
    assert [response["class"] for response in responses] == [0, 0, 1, None]
    assert [response["reward"] for response in responses] == [1.0, 1.0, 0.0, 0.0]
    assert [response["correct"] for response in responses] == [False, False, True, False]
    assert [response["trained"] for response in responses] == [True, True, True, False]
    assert responses[2]["text"] == "It is 3." and responses[3]["answer"] is None
    assert read_train_files(tmp_path / "12.parquet") == [Path("/data/train.parquet")]


def test_every_column_is_written_and_columns_can_be_read_selectively(tmp_path: Path) -> None:
    write_votes(tmp_path / "1.parquet", [group().row(1)], [])
    assert pq.read_schema(tmp_path / "1.parquet").names == SCHEMA.names
    columns = ["id", "tied", "responses.list.element.reward"]
    assert read_votes(tmp_path / "1.parquet", columns) == [
        {"id": "q1", "tied": False, "responses": [{"reward": reward} for reward in (1.0, 1.0, 0.0, 0.0)]}
    ]


@given(
    st.text(st.characters(exclude_categories=())), st.text(st.characters(exclude_categories=())), st.floats(), st.none()
)
def test_any_model_output_survives_a_round_trip_through_json(
    text: str, answer: str, reward: float, truth: None
) -> None:
    response = VotedResponse(text, answer, reward, True, None)
    voted = VotedQuestion("q", text, 0, [answer], truth, [response])
    # Compared by repr, because NaN does not equal itself.
    assert repr(VotedQuestion.from_json(voted.to_json())) == repr(voted)


def test_text_with_lone_surrogates_is_written(tmp_path: Path) -> None:
    question = VotedQuestion("q", "\ud800x", 0, ["\udfff"], None, [VotedResponse("\0<b>", "\ud83d", 0.0, True, None)])
    write_votes(tmp_path / "1.parquet", [GroupOnFile(question, group().record, None).row(1)], [])
    (row,) = read_votes(tmp_path / "1.parquet")
    assert row["question"] == "?x" and row["choices"] == ["?"] and row["responses"][0]["text"] == "\0<b>"
    assert row["first_policy"] is None


@given(st.lists(st.text(), max_size=20), st.one_of(st.none(), st.integers(0, 25)))
def test_the_number_of_kept_groups_is_limited_and_their_choice_does_not_depend_on_order(
    questions: list[str], size: int | None
) -> None:
    files = VoteFiles(Path("unused"), size)
    kept = files.chosen(questions)
    assert len(kept) == min(len(questions), len(questions) if size is None else size)
    assert kept == sorted(set(kept))
    backwards = questions[::-1]
    assert sorted(questions[p] for p in kept) == sorted(backwards[p] for p in files.chosen(backwards))


def test_mostly_the_same_questions_are_kept_in_every_epoch() -> None:
    files = VoteFiles(Path("unused"), 3)
    batches = [[f"q{number}" for number in range(start, start + 10)] for start in (0, 10, 20)]
    kept = {batch[position] for batch in batches for position in files.chosen(batch)}
    shuffled = [f"q{number * 7 % 30}" for number in range(30)]
    again = {shuffled[start : start + 10][p] for start in (0, 10, 20) for p in files.chosen(shuffled[start:][:10])}
    assert len(kept & again) >= 6


def test_several_updates_of_a_step_share_one_file_and_one_limit(tmp_path: Path) -> None:
    files = VoteFiles(tmp_path, 3)
    for first in (0, 2, 4):
        files.add(1, [group(f"q{number}") for number in (first, first + 1)])
    files.add(2, [group("other")])
    files.flush()
    questions = [f"q{number}" for number in range(6)]
    assert ids(tmp_path) == {1: [questions[position] for position in files.chosen(questions)], 2: ["other"]}


def test_a_resumed_run_leaves_no_duplicate_step_and_no_partial_file(tmp_path: Path) -> None:
    before = VoteFiles(tmp_path, None)
    for step in range(1, 12):
        before.add(step, [group(f"before {step}")])
    before.flush()
    (tmp_path / "12.parquet.tmp").write_bytes(b"partial file")
    resumed = VoteFiles(tmp_path, None)
    resumed.continue_from(2)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1.parquet", "2.parquet"]
    resumed.add(3, [group("after 3")])
    resumed.flush()
    assert ids(tmp_path) == {1: ["before 1"], 2: ["before 2"], 3: ["after 3"]}


def test_files_are_written_outside_the_training_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    monkeypatch.setattr(vote_files, "write_votes", lambda *_: threads.append(threading.current_thread()))
    files = VoteFiles(tmp_path, None)
    files.add(1, [group()])
    files.flush()
    assert threads and threading.current_thread() not in threads


def test_a_full_disk_ends_the_run_at_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(vote_files, "write_votes", fail)
    files = VoteFiles(tmp_path, None)
    files.add(1, [group()])
    with pytest.raises(OSError, match="No space left"):
        files.add(2, [group()])


def test_files_without_votes_or_of_another_version_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["q"]}), tmp_path / "1.parquet")
    with pytest.raises(ValueError, match="holds no votes"):
        read_votes(tmp_path / "1.parquet")
    schema = pa.schema([("id", pa.string())], {METADATA_KEY: b'{"version": 99, "train_files": []}'})
    pq.write_table(pa.table({"id": ["q"]}, schema), tmp_path / "2.parquet")
    with pytest.raises(ValueError, match=r"2\.parquet has version 99 .* reads 1"):
        read_votes(tmp_path / "2.parquet")
    (tmp_path / "3.parquet").write_bytes(b"not parquet")
    with pytest.raises(ValueError, match=r"3\.parquet is not a parquet file"):
        read_votes(tmp_path / "3.parquet")
    assert files_of_steps(tmp_path / "missing") == {}
