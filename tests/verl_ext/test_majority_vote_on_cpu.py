"""The reward manager in veRL's registry: it votes in training, grades in validation, and refuses everything else."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from verl import DataProto
from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls

from verl_ext.config_checks import AGENT_LOOP_MANAGER, check_config
from verl_ext.rewards.group_request import AccuracyRequest, GroupAccuracy, GroupRequest, ResponseScore
from verl_ext.rewards.group_reward import REWARDS, GroupReward
from verl_ext.rewards.reward_settings import RewardSettings, read_settings
from verl_ext.rewards.scoring import grade_response
from verl_ext.rollout.question_fields import function_arguments
from verl_ext.rollout.reward_manager import GroupRewardManager
from verl_ext.votes import vote
from verl_ext.votes.vote_record import VoteRecord


class Words:
    """A tokenizer over numbered texts."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def batch_decode(self, token_ids: list[list[int]], skip_special_tokens: bool) -> list[str]:
        assert skip_special_tokens
        return ["".join(self.texts[token] for token in tokens) for tokens in token_ids]


def config(**changes: Any) -> DictConfig:
    settings = OmegaConf.create(
        {
            "reward": {
                "reward_manager": {"name": "majority_vote"},
                "reward_model": {"enable": False},
                "custom_reward_function": {"path": None},
            },
            "actor_rollout_ref": {
                "rollout": {
                    "n": 4,
                    "agent": {"agent_loop_manager_class": AGENT_LOOP_MANAGER},
                    "calculate_log_probs": True,
                }
            },
            "algorithm": {"filter_groups": {"enable": False, "metric": "acc"}},
            "trainer": {"use_v1": True},
        }
    )
    for key, value in changes.items():
        OmegaConf.update(settings, key.replace("__", "."), value, force_add=True)
    return settings


def run(request: Any, *texts: str, **changes: Any) -> list[ResponseScore]:
    manager = GroupRewardManager(config(**changes), Words(*texts), compute_score=None)
    return asyncio.run(manager.run_single(request))


def graded(response: str, ground_truth: str | None) -> ResponseScore:
    return grade_response(response, GroupRequest([[0]], True, ground_truth), RewardSettings())


def votes(scores: list[ResponseScore]) -> list[VoteRecord | None]:
    return [VoteRecord.from_extra_info(score.extra_info) for score in scores]


def pseudo_labels(scores: list[ResponseScore]) -> set[str | None]:
    return {record.vote.pseudo_label for record in votes(scores) if record is not None}


def manager_of(name: str, *texts: str) -> GroupRewardManager:
    settings = config(reward__reward_manager__name=name, data__supervised=REWARDS[name].needs_ground_truth)
    return GroupRewardManager(settings, Words(*texts), compute_score=None)


@pytest.mark.parametrize("name", ["majority_vote", "ground_truth", "random", "entropy"])
def test_verl_finds_every_reward_by_name_once_the_plugin_is_loaded(name: str) -> None:
    assert name in REWARDS and get_reward_manager_cls(name) is GroupRewardManager


def test_a_name_cannot_be_registered_twice() -> None:
    with pytest.raises(ValueError, match=r"reward 'majority_vote' is already registered by .*MajorityVoteReward"):

        @REWARDS.register
        class Other(GroupReward):
            name = "majority_vote"


def test_a_vote_record_survives_the_trip_through_extra_info() -> None:
    record = VoteRecord(vote(["4", "4", None]), 0.5, label_correct=True)
    assert VoteRecord.from_extra_info({"answer": "4", **record.to_extra_info()}) == record
    assert VoteRecord.from_extra_info({"acc": 1.0}) is None


def test_under_supervision_correct_answers_are_rewarded_even_if_the_majority_disagrees() -> None:
    manager = manager_of("ground_truth", r"\boxed{4}", r"\boxed{5}", "none")
    request = GroupRequest([[0], [0], [1], [2]], validate=False, ground_truth="5")
    scores = asyncio.run(manager.run_single(request))
    assert [score.reward for score in scores] == [0.0, 0.0, 1.0, 0.0]
    assert pseudo_labels(scores) == {"4"}


def test_random_rewards_are_independent_and_validation_is_still_graded() -> None:
    manager = manager_of("random", r"\boxed{4}")
    rewards = [score.reward for score in asyncio.run(manager.run_single(GroupRequest([[0]] * 400, validate=False)))]
    assert set(rewards) == {0.0, 1.0} and 100 < sum(rewards) < 300
    (score,) = asyncio.run(manager.run_single(GroupRequest([[0]], validate=True, ground_truth="4")))
    assert score.reward == 1.0


def test_entropy_rewards_a_response_with_its_mean_log_probability() -> None:
    manager = manager_of("entropy", r"\boxed{4}", "none")
    request = GroupRequest([[0], [0, 1], [1]], validate=False, log_probs=[[-1.0], [-0.5, -1.5], [-0.25]])
    scores = asyncio.run(manager.run_single(request))
    assert [score.reward for score in scores] == [-1.0, -1.0, -0.25]
    # The answers vote all the same, for the metrics.
    assert pseudo_labels(scores) == {"4"}
    assert [len(record.vote.rewards) for record in votes(scores) if record] == [3] * 3


@pytest.mark.parametrize("name", ["majority_vote", "ground_truth", "scrl", "entropy"])
def test_a_lone_survivor_gets_no_reward_because_verl_would_use_it_as_the_advantage(name: str) -> None:
    request = GroupRequest([[0]], validate=False, log_probs=[[-1.0]], ground_truth="4")
    (score,) = asyncio.run(manager_of(name, r"\boxed{4}").run_single(request))
    assert score.reward == 0.0


def test_rewards_follow_the_configured_vote_options() -> None:
    request = GroupRequest([[0], [0], [1], [1]], validate=False)
    policy = {"tie": "all"}
    scores = run(request, r"\boxed{4}", r"\boxed{5}", reward__reward_kwargs__vote=policy)
    assert [score.reward for score in scores] == [1.0] * 4
    assert [score.reward for score in run(request, r"\boxed{4}", r"\boxed{5}")] == [0.0] * 4
    soft = run(request, r"\boxed{4}", "none", reward__reward_kwargs__vote={"reward": "soft"})
    assert [score.reward for score in soft] == [0.5, 0.5, 0.0, 0.0]


@pytest.mark.parametrize("validate", [False, True])
def test_the_configured_extraction_applies_in_training_and_in_validation(validate: bool) -> None:
    request = GroupRequest([[0], [0], [1]], validate=validate, ground_truth="4")
    answers = {"extraction": "answer_tag"}
    scores = run(request, "<answer>4</answer>", r"\boxed{5}", reward__reward_kwargs__answers=answers)
    assert [score.reward for score in scores] == [1.0, 1.0, 0.0]
    assert [score.extra_info["answer"] or None for score in scores] == ["4", "4", None]


def test_responses_are_rewarded_for_agreeing_with_the_majority_of_their_group() -> None:
    scores = run(GroupRequest([[0], [1, 0], [2], [3]], validate=False), r"\boxed{4}", "so ", r"\boxed{5}", "none")
    assert [score.reward for score in scores] == [1.0, 1.0, 0.0, 0.0]
    assert [score.extra_info["answer"] for score in scores] == ["4", "4", "5", None]
    assert pseudo_labels(scores) == {"4"}
    assert {record.vote.majority_ratio for record in votes(scores) if record} == {0.5}


@given(
    responses=st.lists(st.sampled_from([r"\boxed{1}", r"\boxed{2}", r"\boxed{3}", "", r"\boxed{None}"]), max_size=9),
    truth=st.none() | st.sampled_from(["1", "2", "None"]),
)
def test_training_rewards_do_not_depend_on_the_ground_truth(responses: list[str], truth: str | None) -> None:
    token_ids = [[number] for number in range(len(responses))]
    with_truth = run(GroupRequest(token_ids, validate=False, ground_truth=truth), *responses)
    without = run(GroupRequest(token_ids, validate=False), *responses)
    assert [score.reward for score in with_truth] == [score.reward for score in without]
    assert all("acc" not in score.extra_info for score in with_truth)


@given(st.lists(st.sampled_from([r"\boxed{1}", r"\boxed{2}", "no box"]), min_size=1, max_size=9))
def test_all_responses_of_a_mode_have_the_same_keys_and_none_is_called_reward(responses: list[str]) -> None:
    trained = {
        frozenset(score.extra_info)
        for score in run(GroupRequest([[number] for number in range(len(responses))], validate=False), *responses)
    }
    validated = {frozenset(graded(response, "1").extra_info) for response in responses}
    assert len(trained) == len(validated) == 1
    assert "reward" not in frozenset.union(*trained, *validated)


def test_validation_is_graded_against_the_ground_truth_even_if_the_majority_disagrees() -> None:
    (score,) = run(GroupRequest([[0]], validate=True, ground_truth="5"), r"\boxed{5}")
    assert score.reward == score.extra_info["acc"] == 1.0
    scores = run(GroupRequest([[0], [0], [1]], validate=True, ground_truth="5"), r"\boxed{4}", r"\boxed{5}")
    assert [score.reward for score in scores] == [0.0, 0.0, 1.0]


def graded_by(function: Any, ground_truth: Any = "5") -> ResponseScore:
    """The validation of a response by a reward function as veRL passes it on."""
    row = {"data_source": "theirs", "reward_model": {"ground_truth": ground_truth}, "extra_info": {"index": 3}}
    settings = config(reward__custom_reward_function__path="mine.py")
    manager = GroupRewardManager(settings, Words(r"\boxed{4}"), compute_score=function)
    request = GroupRequest([[0]], True, function_arguments=function_arguments(row))
    (score,) = asyncio.run(manager.run_single(request))
    return score


def test_a_reward_function_grades_validation_as_in_verls_own_manager() -> None:
    def score(data_source: str, solution_str: str, ground_truth: Any, extra_info: dict[str, Any]) -> float:
        assert (data_source, solution_str, extra_info["index"]) == ("theirs", r"\boxed{4}", 3)
        return 0.25 * len(ground_truth)

    async def score_later(**arguments: Any) -> float:
        await asyncio.sleep(0)
        return score(**arguments)

    for function in (score, score_later):
        assert graded_by(function, ["4", "four"]).reward == 0.5


def test_a_reward_function_that_returns_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"reward\.custom_reward_function returned None for .*boxed.4.*: it must"):
        graded_by(lambda **_: None)


def test_all_values_returned_by_a_reward_function_are_kept() -> None:
    found = graded_by(lambda **_: {"score": 0.9, "acc": 1.0, "format": 0.5})
    assert found.reward == 0.9
    assert found.extra_info == {"acc": 1.0, "format": 0.5, "answered": 1.0, "answer": "4"}
    assert graded_by(lambda **_: {"score": 1}).extra_info["acc"] == 1.0


@pytest.mark.parametrize(("response", "truth"), [("no box", None), (r"\boxed{None}", None), ("None", "None")])
def test_validation_never_counts_a_missing_answer_or_ground_truth_as_correct(response: str, truth: str | None) -> None:
    assert graded(response, truth).reward == 0.0


def test_a_reward_worker_measures_the_accuracy_of_a_group_with_final_rewards() -> None:
    record = VoteRecord(vote(["4", "4", "5"]), 0.25)
    request = AccuracyRequest("q", "5", ["4", "5"], [1.0, 0.0], None, record)
    measured = replace(record, label_correct=False, ground_truth_ratio=0.5, reward_accuracy=0.0)
    assert run(request) == GroupAccuracy(measured, "5", [False, True])


def test_decoded_texts_are_returned_in_training_only() -> None:
    texts = (r"\boxed{4}", "none")
    assert [score.text for score in run(GroupRequest([[0], [1]], validate=False), *texts)] == [*texts]
    assert [score.text for score in run(GroupRequest([[0]], validate=True), *texts)] == [None]


def test_single_responses_without_a_group_are_refused_with_the_key_to_set() -> None:
    with pytest.raises(TypeError, match=f"agent_loop_manager_class={AGENT_LOOP_MANAGER}"):
        run(DataProto())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actor_rollout_ref__rollout__agent__agent_loop_manager_class": None}, "agent_loop_manager_class="),
        ({"actor_rollout_ref__rollout__n": 1}, "rollout.n >= 2"),
        ({"trainer__use_v1": False}, "trainer.use_v1=True"),
        ({"async_training": {"require_batches": 1}}, "run verl.trainer.main_ppo with .*=separate_async"),
        ({"rollout": {"nnodes": 1}}, "run verl.trainer.main_ppo with .*=separate_async"),
        ({"reward__reward_manager__source": "importlib"}, "reward_manager.source=register, not importlib"),
        ({"algorithm__adv_estimator": "remax"}, "cannot compute algorithm.adv_estimator=remax: set .*=grpo"),
        (
            {"distillation": {"enabled": True, "distillation_loss": {"use_task_rewards": False}}},
            "use_task_rewards=False trains on no reward",
        ),
        (
            {"reward__reward_kwargs__overlong_buffer_cfg": {"enable": True, "len": 4096}},
            "a penalty of veRL's reward manager dapo, .*: set reward.reward_kwargs.overlong_buffer_cfg.enable=False$",
        ),
        ({"reward__reward_model__enable": True}, "reward.reward_model.enable=False"),
        ({"data__supervised": True}, "data.supervised=True does not go with .*majority_vote"),
        ({"reward__reward_manager__name": "ground_truth"}, "data.supervised=False does not go with .*ground_truth"),
        ({"reward__reward_kwargs__votes": {}}, r"reward\.reward_kwargs: there is no key 'votes'; did you mean 'vote'"),
        ({"reward__reward_kwargs__vote": {"tye": "all"}}, r"reward_kwargs\.vote: there is no key 'tye'; .*'tie'"),
        ({"reward__reward_kwargs__vote": {"min_share": 2}}, r"reward_kwargs\.vote: min_share must be a number"),
        ({"reward__reward_kwargs__answers": {"rul": 1}}, r"reward_kwargs\.answers: there is no key 'rul'; .*'rule'"),
        ({"reward__reward_kwargs__answers": {"extraction": "box"}}, r"answers: extraction must be one of boxed, "),
        ({"reward__reward_kwargs__vote": {"vote_n": 3}}, r"vote_n=3 is less than the 4 responses .*rollout\.n"),
        ({"reward__reward_kwargs__vote": {"min_votes": 5}}, r"min_votes=5 can never be reached by 4 responses"),
        ({"reward__reward_kwargs__vote": "soft"}, r"reward_kwargs\.vote: must be a block of tie, .*, not 'soft'"),
        ({"skip": {"rollout_tq": {"enable": True}}}, "with their saved rewards: set skip.rollout_tq.enable=False"),
        ({"algorithm__filter_groups__enable": True}, r"set algorithm\.filter_groups\.metric=reward, not acc"),
        (
            {
                "reward__reward_manager__name": "entropy",
                "actor_rollout_ref__rollout__calculate_log_probs": False,
            },
            r"set actor_rollout_ref\.rollout\.calculate_log_probs=True",
        ),
    ],
)
def test_a_config_under_which_no_group_would_vote_is_refused_at_start(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GroupRewardManager(config(**change), Words(), compute_score=None)


@pytest.mark.parametrize("reward_kwargs", [None, {}, {"vote": None, "answers": None}])
def test_missing_blocks_get_their_defaults(reward_kwargs: dict[str, Any] | None) -> None:
    settings = config(reward__reward_kwargs=reward_kwargs)
    assert read_settings(settings.reward.reward_kwargs) == RewardSettings()
    check_config(settings)


def test_valid_settings_pass() -> None:
    check_config(config(reward__reward_kwargs__vote={"vote_n": 8, "min_votes": 6, "tie": "seeded", "seed": 7}))
    check_config(config(algorithm__filter_groups={"enable": True, "metric": "reward"}))
    check_config(config(algorithm__adv_estimator="rloo", distillation={"enabled": False}))
    dapo = {"overlong_buffer_cfg": {"enable": False, "len": 4096}, "max_resp_len": 8192}
    check_config(config(reward__reward_kwargs=dapo))


def test_a_run_that_only_validates_needs_no_groups() -> None:
    only_validates = config(actor_rollout_ref__rollout__n=1, trainer__val_only=True)
    check_config(only_validates)
    # veRL then trains after all.
    only_validates.trainer.val_before_train = False
    with pytest.raises(ValueError, match=r"rollout\.n >= 2"):
        check_config(only_validates)
