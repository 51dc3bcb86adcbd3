"""The vote: which answer is elected, which responses are rewarded, and invariances under all options."""

import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_ext.answers import extract_answer
from verl_ext.unknown_keys import read_block
from verl_ext.votes import VoteOptions, vote

# Few distinct answers make majorities, ties and repetitions common.
answers_strategy = st.lists(st.sampled_from([None, "1", "2", "3", "10"]), max_size=12)
vote_options = st.builds(
    VoteOptions,
    tie=st.sampled_from(["none", "all", "seeded"]),
    min_share=st.sampled_from([0.0, 0.25, 0.4, 0.5, 1.0]),
    min_votes=st.integers(min_value=2, max_value=4),
    count_no_answer=st.booleans(),
    reward=st.sampled_from(["hard", "soft", "soft_min"]),
    soft_min_share=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    seed=st.integers(min_value=0, max_value=3),
)
TIED = ["2", "1", "1", "2", "3"]


def test_the_majority_answer_is_the_pseudo_label_and_its_responses_are_rewarded() -> None:
    result = vote(["10", "7", "10", None, " 10 ", "7"])
    assert result.pseudo_label == "10"
    assert result.rewards == (1.0, 0.0, 1.0, 0.0, 1.0, 0.0)
    assert result.classes == ((0, 2, 4), (1, 5))
    assert result.majority_ratio == 3 / 6
    assert result.no_answer == 1
    assert result.distinct == 2
    assert not result.tied


def test_a_tie_elects_and_rewards_no_answer() -> None:
    result = vote(["2", "1", "1", "2", "3"])
    assert result.tied
    assert result.pseudo_label is None
    assert result.rewards == (0.0,) * 5
    assert result.majority_ratio == 2 / 5
    assert result.classes == ((1, 2), (0, 3), (4,))


def test_a_single_answer_does_not_elect_itself() -> None:
    for answers in (["5"], ["5", None, None, None]):
        result = vote(answers)
        assert result.pseudo_label is None
        assert result.rewards == (0.0,) * len(answers)
        assert not result.tied
        assert result.majority_ratio == 1 / len(answers)


def test_responses_without_a_box_never_vote_even_if_they_say_none() -> None:
    responses = ["I do not know", "None", "no box here", r"\boxed{5}", r"\boxed{5}"]
    result = vote([extract_answer(response) for response in responses])
    assert result.pseudo_label == "5"
    assert result.rewards == (0.0, 0.0, 0.0, 1.0, 1.0)
    assert result.no_answer == 3


def test_a_group_without_answers_elects_none() -> None:
    for size in (0, 1, 8):
        result = vote([None] * size)
        assert result.pseudo_label is None
        assert result.rewards == (0.0,) * size
        assert result.classes == ()
        assert result.majority_ratio == 0.0
        assert result.no_answer == size


@given(answers_strategy, vote_options, st.randoms(use_true_random=False))
def test_permuting_the_responses_permutes_the_rewards_and_changes_nothing_else(answers, options, random) -> None:
    order = list(range(len(answers)))
    random.shuffle(order)
    texts = [f"{i} so {answer}" for i, answer in enumerate(answers)]
    original = vote(answers, options, responses=texts)
    permuted = vote([answers[i] for i in order], options, responses=[texts[i] for i in order])
    assert permuted.rewards == tuple(original.rewards[i] for i in order)
    assert (permuted.pseudo_label, permuted.majority_ratio, permuted.tied) == (
        original.pseudo_label,
        original.majority_ratio,
        original.tied,
    )
    position = {old: new for new, old in enumerate(order)}
    assert permuted.classes == tuple(tuple(sorted(position[i] for i in members)) for members in original.classes)


@given(answers_strategy, vote_options, st.permutations(["1", "2", "3", "10"]))
def test_renaming_the_answers_renames_the_winner_and_changes_no_reward(answers, options, names) -> None:
    renamed = dict(zip(["1", "2", "3", "10"], names, strict=True))
    original = vote(answers, options)
    result = vote([None if answer is None else renamed[answer] for answer in answers], options)
    # The answers themselves decide which of several tied answers is drawn or named as the winner.
    if not original.tied or options.tie == "none":
        assert result.pseudo_label == (None if original.pseudo_label is None else renamed[original.pseudo_label])
    if not original.tied or options.tie != "seeded":
        assert result.rewards == original.rewards
    assert sorted(result.rewards) == sorted(original.rewards)
    assert (result.majority_ratio, result.tied) == (original.majority_ratio, original.tied)
    assert sorted(result.classes) == sorted(original.classes)


@given(answers_strategy, vote_options, st.integers(min_value=1, max_value=20))
def test_responses_without_an_answer_are_never_rewarded_and_change_nothing_if_not_counted(
    answers, options, silent
) -> None:
    original, result = vote(answers, options), vote([*answers, *[None] * silent], options)
    assert result.rewards[len(answers) :] == (0.0,) * silent
    assert result.no_answer == original.no_answer + silent
    if options.count_no_answer:
        assert result.majority_ratio * len(result.rewards) == pytest.approx(original.majority_ratio * len(answers))
        # Their only effect is that a share can become too small.
        assert result.pseudo_label == (original.pseudo_label if result.majority_ratio >= options.min_share else None)
    else:
        assert (result.pseudo_label, result.majority_ratio) == (original.pseudo_label, original.majority_ratio)
        assert result.rewards[: len(answers)] == original.rewards


@given(answers_strategy, vote_options)
def test_duplicating_a_group_duplicates_its_rewards_unless_it_had_too_few_votes(answers, options) -> None:
    original, result = vote(answers, options), vote(answers * 2, options)
    assert (result.majority_ratio, result.tied, result.distinct) == (
        original.majority_ratio,
        original.tied,
        original.distinct,
    )
    if original.classes and len(original.classes[0]) >= options.min_votes:
        assert result.pseudo_label == original.pseudo_label
        assert result.rewards == original.rewards * 2


@given(answers_strategy, vote_options)
def test_rewards_are_between_0_and_1_equal_within_a_class_and_0_without_an_answer(answers, options) -> None:
    result = vote(answers, options)
    assert len(result.rewards) == len(answers) and all(0 <= reward <= 1 for reward in result.rewards)
    assert all(len({result.rewards[i] for i in members}) == 1 for members in result.classes)
    assert all(result.rewards[i] == 0.0 for i, answer in enumerate(answers) if answer is None)


@given(answers_strategy, vote_options)
def test_a_group_below_a_quorum_elects_no_answer_and_has_zero_advantage(answers, options) -> None:
    result = vote(answers, options)
    most = max((len(members) for members in result.classes), default=0)
    if most < options.min_votes or result.majority_ratio < options.min_share:
        assert result.pseudo_label is None and not any(result.rewards)


@pytest.mark.parametrize("tie", ["none", "all", "seeded"])
@given(answers=answers_strategy)
def test_soft_rewards_are_class_shares_whatever_the_tie_rule(tie: str, answers) -> None:
    result = vote(answers, VoteOptions(tie=tie, reward="soft"))
    if max(map(answers.count, {*answers} - {None}), default=0) >= 2:
        expected = [0.0 if answer is None else answers.count(answer) / len(answers) for answer in answers]
        assert list(result.rewards) == expected


def test_the_tie_rule_all_rewards_every_tied_class() -> None:
    result = vote(TIED, VoteOptions(tie="all"))
    assert result.rewards == (1.0, 1.0, 1.0, 1.0, 0.0)
    assert result.pseudo_label == "1" and result.tied


def test_the_tie_rule_seeded_rewards_one_class_that_depends_on_seed_and_responses() -> None:
    results = [vote(TIED, VoteOptions(tie="seeded", seed=seed)) for seed in range(20)]
    assert {result.pseudo_label for result in results} == {"1", "2"}
    assert all(sum(result.rewards) == 2.0 and result.tied for result in results)
    options = VoteOptions(tie="seeded")
    assert {vote(TIED, options, responses=[f"text {i}"]).pseudo_label for i in range(20)} == {"1", "2"}


def test_a_seeded_tie_has_the_same_outcome_in_every_process() -> None:
    code = (
        "from verl_ext.votes import VoteOptions, vote\n"
        "for seed in range(20): print(vote(['1', '1', '2', '2'], VoteOptions(tie='seeded', seed=seed)).pseudo_label)"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_a_tie_of_single_votes_elects_no_answer_under_any_rule() -> None:
    for tie in ("none", "all", "seeded"):
        assert vote(["5", "6", "7", "8"], VoteOptions(tie=tie)).rewards == (0.0,) * 4


def test_a_majority_below_min_share_or_min_votes_gives_zero_rewards() -> None:
    answers = ["1", "1", "1", "2", None]
    assert vote(answers, VoteOptions(min_share=0.6)).pseudo_label == "1"
    for options in (VoteOptions(min_share=0.61), VoteOptions(min_votes=4)):
        result = vote(answers, options)
        assert result.pseudo_label is None and result.rewards == (0.0,) * 5 and result.majority_ratio == 0.6
    assert vote(answers, VoteOptions(min_share=0.61, count_no_answer=False)).majority_ratio == 0.75


def test_soft_min_gives_zero_rewards_if_the_largest_share_is_below_its_threshold() -> None:
    answers = ["1", "1", "2", "3", "4"]
    assert vote(answers, VoteOptions(reward="soft")).rewards == (0.4, 0.4, 0.2, 0.2, 0.2)
    assert vote(answers, VoteOptions(reward="soft_min")).rewards == (0.4, 0.4, 0.2, 0.2, 0.2)
    result = vote(answers, VoteOptions(reward="soft_min", soft_min_share=0.5))
    assert result.rewards == (0.0,) * 5
    # The pseudo-label is still elected.
    assert result.pseudo_label == "1"


@given(answers_strategy)
def test_exactly_the_responses_with_the_strictly_most_frequent_answer_are_rewarded(answers) -> None:
    result = vote(answers)
    counts = {answer: answers.count(answer) for answer in answers if answer is not None}
    strict = [a for a, n in counts.items() if n >= 2 and all(n > m for b, m in counts.items() if b != a)]
    assert result.pseudo_label == (strict[0] if strict else None)
    assert result.rewards == tuple(float(answer in strict) for answer in answers)
    assert result.tied == ([*counts.values()].count(max(counts.values(), default=0)) > 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tie": "first"}, "tie must be one of none, all, seeded, not 'first'"),
        ({"reward": "softmin"}, "reward must be one of hard, soft, soft_min, not 'softmin'"),
        ({"min_share": 1.5}, "min_share must be a number from 0 to 1, not 1.5"),
        ({"min_share": "0.5"}, "min_share must be a number"),
        ({"soft_min_share": -0.1}, "soft_min_share must be a number from 0 to 1"),
        ({"soft_min_share": True}, "soft_min_share must be a number"),
        ({"min_votes": 1}, "min_votes must be a whole number of at least 2, not 1"),
        ({"min_votes": 2.0}, "min_votes must be a whole number"),
        ({"count_no_answer": "no"}, "count_no_answer must be True or False, not 'no'"),
        ({"vote_n": 1}, "vote_n must be null or a whole number of at least 2, not 1"),
        ({"seed": None}, "seed must be a whole number, not None"),
    ],
)
def test_an_invalid_option_is_refused_with_its_name_and_allowed_values(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VoteOptions(**changes)


def test_a_config_block_is_read_and_an_unknown_key_is_refused_with_a_suggestion() -> None:
    assert read_block({}, VoteOptions) == VoteOptions()
    assert read_block({"tie": "all", "vote_n": 8}, VoteOptions) == VoteOptions(tie="all", vote_n=8)
    for field in fields(VoteOptions):
        with pytest.raises(ValueError, match=f"no key '{field.name}s'; did you mean '{field.name}'"):
            read_block({f"{field.name}s": 1}, VoteOptions)
