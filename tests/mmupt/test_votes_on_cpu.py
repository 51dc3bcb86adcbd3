"""On the real stack: extra responses vote, groups that teach nothing are replaced by others, votes go on file."""

import json
from collections import defaultdict
from pathlib import Path

import pytest
from full_stack import scalars, train

from verl_ext.datasets.parquet_reader import read_ids
from verl_ext.votes.vote_files import files_of_steps, read_train_files, read_votes

pytestmark = pytest.mark.full_stack

OVERRIDES = (
    "reward.reward_kwargs.vote.vote_n=6",
    # Few groups of the untrained model agree so much: it is next to certain that some are replaced.
    "reward.reward_kwargs.vote.min_votes=4",
    "algorithm.filter_groups.enable=True",
    "algorithm.filter_groups.metric=reward",
)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train("mmupt_tiny", tmp_path_factory.mktemp("run"), *OVERRIDES)


@pytest.fixture(scope="module")
def series(run_folder: Path) -> dict[str, dict[int, float]]:
    return scalars(run_folder)


def test_every_group_that_is_trained_on_has_n_responses_and_teaches_something(
    run_folder: Path, series: dict[str, dict[int, float]]
) -> None:
    for step in (1, 2):
        groups: dict[str, list[float]] = defaultdict(list)
        for line in (run_folder / "rollouts" / f"{step}.jsonl").read_text().splitlines():
            row = json.loads(line)
            groups[row["uid"].split("_")[0]].append(row["score"])
        assert [len(rewards) for rewards in groups.values()] == [4] * 4
        assert all(set(rewards) == {0.0, 1.0} for rewards in groups.values())
    assert series["vote/zero_advantage_rate"] == {1: 0.0, 2: 0.0}


def test_groups_that_teach_nothing_were_replaced(series: dict[str, dict[int, float]]) -> None:
    assert sum(series["training/filter_groups/evicted_samples"].values()) > 0


def test_every_step_leaves_its_votes_on_file(run_folder: Path, series: dict[str, dict[int, float]]) -> None:
    from verl_ext.answers import extract_answer
    from verl_ext.votes import VoteOptions, vote

    files = files_of_steps(run_folder / "votes")
    assert [*files] == [1, 2]
    for step, file in files.items():
        groups = read_votes(file)
        assert len(groups) == 4 and all(len(group["responses"]) == 6 for group in groups)
        for group in groups:
            responses = group["responses"]
            result = vote([extract_answer(one["text"]) for one in responses], VoteOptions(min_votes=4))
            assert [one["reward"] for one in responses] == [*result.rewards]
            assert (group["pseudo_label"], group["majority_ratio"]) == (result.pseudo_label, result.majority_ratio)
            assert [one["trained"] for one in responses] == [True] * 4 + [False] * 2
            assert (group["first_policy"], group["last_policy"], group["images"]) == (step - 1, step - 1, 1)
            assert group["question"] and "<image>" not in group["question"]
            # The task is labelled: the truth was joined after the vote.
            assert group["label_correct"] == responses[result.classes[0][0]]["correct"]
        right = [group["label_correct"] for group in groups]
        assert series["vote/label_accuracy"][step] == pytest.approx(sum(right) / 4)
    (train_file,) = read_train_files(files[1])
    assert {group["id"] for group in read_votes(files[1])} <= {*read_ids(train_file)}


def test_all_that_vote_are_counted(series: dict[str, dict[int, float]]) -> None:
    assert series["vote/failed_responses"] == {1: 0.0, 2: 0.0}
    for step in (1, 2):
        # A mean over four groups of six voters.
        assert series["vote/majority_ratio"][step] * 4 * 6 == pytest.approx(
            round(series["vote/majority_ratio"][step] * 4 * 6), abs=1e-4
        )
        assert series["vote/majority_ratio"][step] > 0.66
