"""A collapse is a fall of held-out accuracy beyond noise while the majority ratio rises, and nothing else."""

import json
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from verl_ext.checkpoints import checkpoint_of, mark_whole
from verl_ext.collapse import CollapseAlarm, CollapseRule, History, StoppedOnCollapse, find_collapse, read_alarm
from verl_ext.collapse.rule import fall_between, rises, wobble

RISING = {step: 0.3 + 0.03 * step for step in range(1, 21)}
FLAT = {step: 0.5 + 0.02 * (-1) ** step for step in range(1, 21)}
FALLING = {step: 0.9 - 0.02 * step for step in range(1, 21)}


def validation(right: int, total: int = 100) -> dict[str, float]:
    """Return a validation in which the first `right` of `total` questions are answered correctly."""
    return {f"q{number:03}": float(number < right) for number in range(total)}


COLLAPSING = {0: validation(50), 5: validation(80), 10: validation(79), 15: validation(60), 20: validation(40)}

outcomes = st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=12, max_size=12)
ratios = st.lists(st.floats(0, 1), min_size=20, max_size=20).map(lambda values: dict(enumerate(values, 1)))
rules = st.builds(CollapseRule, z=st.floats(0, 3), patience=st.integers(1, 3), min_fall=st.floats(0, 0.1))
# The cases below have few validations.
RULE = CollapseRule(patience=2)


def test_a_fall_under_a_rising_majority_ratio_is_a_collapse_described_with_its_numbers() -> None:
    collapse = find_collapse(RISING, COLLAPSING, RULE, measure="pass@4")
    assert collapse is not None
    assert (collapse.fall.best_step, collapse.fall.step) == (5, 20)
    assert (collapse.fall.best, collapse.fall.value, collapse.fall.questions) == (0.8, 0.4, 100)
    # Of the differences of 100 questions, 40 are 1 and 60 are 0: sqrt(0.4 * 0.6 / 99).
    assert collapse.fall.standard_error == pytest.approx(0.0492, abs=1e-4)
    assert str(collapse).startswith(
        "pass@4 on 100 validation questions fell from 80.0 % at step 5 to 40.0 % at step 20"
    )
    assert str(collapse).endswith("the majority ratio rose from 0.57 to 0.79")


@pytest.mark.parametrize("ratios", [FLAT, FALLING, {}], ids=["flat", "falling", "unknown"])
def test_a_fall_without_a_rising_majority_ratio_is_no_collapse(ratios: dict[int, float]) -> None:
    assert find_collapse(ratios, COLLAPSING, RULE) is None


def test_a_majority_ratio_near_one_counts_as_rising() -> None:
    saturated = {step: 0.97 + 0.01 * (-1) ** step for step in range(1, 21)}
    assert find_collapse(saturated, COLLAPSING, RULE) is not None


def test_one_bad_validation_is_forgiven_but_two_in_a_row_are_not() -> None:
    up_to_15 = {step: scores for step, scores in COLLAPSING.items() if step <= 15}
    assert find_collapse(RISING, up_to_15, RULE) is None
    assert find_collapse(RISING, up_to_15, CollapseRule(patience=1)) is not None
    assert find_collapse(RISING, COLLAPSING | {15: validation(79)}, RULE) is None


@given(ratios, outcomes, rules)
def test_a_constant_series_is_no_collapse(ratios: dict[int, float], right: list[float], rule: CollapseRule) -> None:
    constant = {f"q{number}": value for number, value in enumerate(right)}
    assert find_collapse(ratios, dict.fromkeys(range(0, 21, 5), constant), rule) is None


@given(ratios, st.lists(st.integers(0, 100), min_size=2, max_size=5).map(sorted), rules)
def test_an_improving_series_is_no_collapse(ratios: dict[int, float], right: list[int], rule: CollapseRule) -> None:
    validations = {5 * number: validation(count) for number, count in enumerate(right)}
    assert find_collapse(ratios, validations, rule) is None


@given(ratios, st.lists(outcomes, min_size=2, max_size=5), rules, st.randoms(use_true_random=False))
def test_the_order_of_questions_and_of_validations_does_not_matter(
    ratios: dict[int, float], series: list[list[float]], rule: CollapseRule, chance: random.Random
) -> None:
    named = {5 * step: {f"q{index}": value for index, value in enumerate(right)} for step, right in enumerate(series)}

    def shuffled(validations: dict) -> dict:
        return dict(chance.sample(list(validations.items()), len(validations)))

    assert find_collapse(ratios, named, rule) == find_collapse(
        shuffled(ratios), shuffled({step: shuffled(scores) for step, scores in named.items()}), rule
    )


@given(st.integers(30, 100), st.integers(2, 8))
def test_a_loss_of_25_points_is_detected_after_any_number_of_validations(right: int, before: int) -> None:
    validations = {step: validation(right) for step in range(before)}
    validations |= {before: validation(right - 25), before + 1: validation(right - 30)}
    assert find_collapse(RISING, {5 * step // 2: scores for step, scores in validations.items()}, RULE) is not None


def test_only_common_questions_are_compared() -> None:
    best, latest = validation(80), validation(80) | {"new": 0.0}
    fall = fall_between({0: best, 5: latest}, best_step=0, step=5, rule=RULE)
    assert fall is not None and fall.questions == 100 and fall.value == fall.best
    assert fall_between({0: {"a": 1.0}, 5: {"b": 0.0}}, best_step=0, step=5, rule=RULE) is None


def test_the_threshold_grows_with_the_number_of_validations() -> None:
    thresholds = []
    for count in (2, 10, 50):
        fall = fall_between({step: validation(50) for step in range(count)}, 0, count - 1, RULE)
        assert fall is not None
        thresholds.append(fall.threshold)
    assert thresholds == pytest.approx([2.83, 3.52, 3.98], abs=0.01)


def test_a_wobbling_policy_gets_more_tolerance_and_learning_is_not_wobble() -> None:
    wobbling = {5 * number: validation(right) for number, right in enumerate([60, 52, 60, 52, 60])}
    assert wobble(wobbling) == pytest.approx(1.5 * 0.08**2 - 0.08 * 0.92 / 99 / 2)
    for course in ([20, 40, 60, 80], [50, 80, 79, 80], [80, 80, 40, 40], [80, 60, 35, 30], [20]):
        assert wobble({5 * number: validation(right) for number, right in enumerate(course)}) == 0.0
    fallen = {step: validation(48) for step in (25, 30, 35)}
    quiet = {5 * number: validation(60) for number in range(5)}
    rule = CollapseRule(z=1)
    assert find_collapse(RISING | {step: 1.0 for step in range(21, 36)}, quiet | fallen, rule) is not None
    assert find_collapse(RISING | {step: 1.0 for step in range(21, 36)}, wobbling | fallen, rule) is None


def test_wobble_estimates_the_variance_of_the_policy_between_validations() -> None:
    chance, estimates = random.Random(0), []
    for _ in range(40):
        ability = {f"q{number}": chance.uniform(0.3, 0.7) for number in range(400)}
        course = [chance.gauss(0, 0.05) for _ in range(12)]
        estimates.append(
            wobble(
                {
                    step: {question: float(chance.random() < right + shift) for question, right in ability.items()}
                    for step, shift in enumerate(course)
                }
            )
        )
    assert sum(estimates) / len(estimates) == pytest.approx(0.05**2, rel=0.2)


def test_a_sudden_collapse_is_not_taken_for_wobble() -> None:
    ratios = {step: min(0.98, 0.4 + 0.04 * step) for step in range(1, 41)}
    falling = {5 * number: validation(right) for number, right in enumerate([60, 48, 35, 32, 32])}
    assert find_collapse(ratios, falling) is not None
    # The same if the first fall is too small to count.
    assert find_collapse(ratios, {5 * number: validation(right) for number, right in enumerate([60, 56, 36, 32, 32])})


def test_a_fall_below_min_fall_does_not_count_however_significant() -> None:
    fallen = {0: validation(9_000, 10_000)} | {step: validation(8_600, 10_000) for step in (5, 10, 15)}
    assert find_collapse(RISING, fallen) is None
    assert find_collapse(RISING, fallen, CollapseRule(min_fall=0.03)) is not None


def test_a_majority_ratio_rises_only_beyond_its_own_noise() -> None:
    chance = random.Random(0)
    noisy = [0.5 + chance.gauss(0, 0.03) for _ in range(40)]
    assert not rises(noisy, z=2)
    assert rises([value + 0.002 * step for step, value in enumerate(noisy)], z=2)
    assert not rises([0.5], z=0) and not rises([], z=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"z": -1}, "z must be"),
        ({"z": "2"}, "z must be a number of at least 0, not '2'"),
        ({"patience": 0}, "patience must be"),
        ({"patience": 1.5}, r"patience must be a whole number of at least 1, not 1\.5"),
        ({"min_fall": 6}, "min_fall must be"),
    ],
)
def test_an_invalid_rule_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CollapseRule(**settings)  # type: ignore[arg-type]


def test_a_run_that_changes_only_by_chance_is_not_stopped() -> None:
    # benchmarks/collapse_alarm.py measures how often it is.
    chance = random.Random(1)
    ability = {f"q{number}": chance.betavariate(2, 1) for number in range(256)}
    validations: dict[int, dict[str, float]] = {}
    for step in range(0, 250, 5):
        validations[step] = {question: float(chance.random() < right) for question, right in ability.items()}
        risen = {past: 0.5 + 0.001 * past for past in range(1, step + 1)}
        assert find_collapse(risen, validations) is None


# The history file.


def test_a_history_reads_back_what_was_added(tmp_path: Path) -> None:
    history = History(tmp_path / "run" / "history.jsonl")
    history.continue_from(0)
    history.add_validation(0, {"a": [1.0, 0.0]})
    history.add_validation(0, {"b": [0.0, 0.0]})
    history.add_majority_ratio(1, 0.5)
    for copy in (history, History(history.file)):
        assert copy.majority_ratios == {1: 0.5} and copy.validations == {0: {"a": [1.0, 0.0], "b": [0.0, 0.0]}}
        assert copy.measures() == {"accuracy": {0: {"a": 0.5, "b": 0.0}}, "pass@2": {0: {"a": 1.0, "b": 0.0}}}


def test_a_truncated_last_line_is_ignored(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    history.add_majority_ratio(1, 0.5)
    with history.file.open("a") as file:
        file.write('{"step": 2, "sha')
    resumed = History(history.file)
    resumed.continue_from(1)
    resumed.add_majority_ratio(2, 0.6)
    assert History(history.file).majority_ratios == {1: 0.5, 2: 0.6}


def test_a_resumed_run_forgets_entries_after_its_checkpoint(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    for step in range(1, 6):
        history.add_majority_ratio(step, step / 10)
        history.add_validation(step, {"a": [0.0]})
    History(history.file).continue_from(3)
    resumed = History(history.file)
    assert set(resumed.majority_ratios) == {1, 2, 3} and set(resumed.validations) == {1, 2, 3}
    resumed.add_validation(3, {"a": [1.0]})
    assert History(history.file).validations[3] == {"a": [1.0]}


def test_one_response_per_question_gives_no_pass_at_k(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    assert history.measures() == {"accuracy": {}}
    history.add_validation(0, {"a": [1.0]})
    assert set(history.measures()) == {"accuracy"}


# The alarm in a run.


def alarm_in(folder: Path, reward_manager: str = "majority_vote", **settings: object) -> CollapseAlarm:
    kwargs = {
        "stop_on_collapse": {"enable": True, "z": 2.0, "patience": 2, "min_fall": 0.07} | settings,
        "history": str(folder / "history.jsonl"),
        "checkpoints": str(folder / "checkpoints"),
        "reward_manager": reward_manager,
    }
    return read_alarm(OmegaConf.create(kwargs))


def save(folder: Path, step: int) -> None:
    actor = checkpoint_of(folder / "checkpoints", step) / "actor"
    actor.mkdir(parents=True, exist_ok=True)
    for name in ("model_world_size_1_rank_0.pt", "optim_world_size_1_rank_0.pt"):
        (actor / name).write_text(f"{name} of {step}")
    mark_whole(actor.parent)


def remove(folder: Path, step: int) -> None:
    shutil.rmtree(checkpoint_of(folder / "checkpoints", step), ignore_errors=True)


def run(alarm: CollapseAlarm, folder: Path, first: int, last: int, keep: int = 2) -> None:
    """Run steps like veRL: train, save, validate every fifth step, and remove the oldest checkpoints."""
    for step in range(first, last + 1):
        alarm.before_training(step)
        alarm.trained(step, RISING[step])
        save(folder, step)
        if step > keep:
            remove(folder, step - keep)
        if step % 5 == 0:
            alarm.validated(step, {question: [right] for question, right in COLLAPSING[step].items()})


def kept(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder / "checkpoints/best")) for file in folder.glob("checkpoints/best/*/*/*"))


def test_a_collapse_ends_training_and_keeps_the_best_weights(tmp_path: Path) -> None:
    alarm = alarm_in(tmp_path)
    alarm.validated(0, {question: [right] for question, right in COLLAPSING[0].items()})
    run(alarm, tmp_path, 1, 20)
    with pytest.raises(StoppedOnCollapse, match=r"fell from 80\.0 % at step 5 to 40\.0 % at step 20"):
        alarm.before_training(21)
    assert kept(tmp_path) == ["global_step_5/actor/model_world_size_1_rank_0.pt"]
    after = alarm_in(tmp_path)
    assert after.find_collapse() == alarm.find_collapse() and after.best_step("accuracy") == 5


def test_a_killed_and_resumed_run_is_still_stopped(tmp_path: Path) -> None:
    run(alarm_in(tmp_path), tmp_path, 1, 12)
    # The last step was not saved: veRL resumes from step 11.
    remove(tmp_path, 12)
    resumed = alarm_in(tmp_path)
    run(resumed, tmp_path, 12, 20)
    with pytest.raises(StoppedOnCollapse, match=r"at step 5 to 40\.0 % at step 20"):
        resumed.before_training(21)
    assert kept(tmp_path) == ["global_step_5/actor/model_world_size_1_rank_0.pt"]


def test_a_policy_after_the_resumed_step_is_not_kept(tmp_path: Path) -> None:
    alarm = alarm_in(tmp_path)
    run(alarm, tmp_path, 1, 5)
    alarm.before_training(6)
    assert kept(tmp_path)
    alarm_in(tmp_path).before_training(3)
    assert not kept(tmp_path)


def test_a_disabled_alarm_records_but_keeps_no_policy(tmp_path: Path) -> None:
    alarm = alarm_in(tmp_path, enable=False)
    run(alarm, tmp_path, 1, 20)
    alarm.before_training(21)
    assert alarm.find_collapse() is None and not kept(tmp_path)
    # An alarm that reads the history later finds the collapse.
    assert alarm_in(tmp_path).find_collapse() is not None


@pytest.mark.parametrize("control", ["ground_truth", "random"])
def test_controls_are_never_stopped(tmp_path: Path, control: str) -> None:
    alarm = alarm_in(tmp_path, reward_manager=control)
    run(alarm, tmp_path, 1, 20)
    alarm.before_training(21)
    assert not alarm.is_on


def test_the_model_before_training_may_be_the_best(tmp_path: Path) -> None:
    alarm = alarm_in(tmp_path)
    alarm.validated(0, {question: [right] for question, right in validation(90).items()})
    with pytest.raises(StoppedOnCollapse):
        run(alarm, tmp_path, 1, 20)
    assert alarm.best_step("accuracy") == 0 and not kept(tmp_path)


def test_validations_without_a_checkpoint_leave_no_best_policy(tmp_path: Path) -> None:
    alarm = alarm_in(tmp_path)
    alarm.validated(5, {"a": [1.0], "b": [1.0]})
    alarm.before_training(6)
    assert alarm.best_step("accuracy") is None


def test_a_misspelled_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"stop_on_collapse: .*'patiense'; did you mean 'patience'"):
        alarm_in(tmp_path, patiense=3)


def test_the_history_is_plain_json_lines(tmp_path: Path) -> None:
    run(alarm_in(tmp_path), tmp_path, 1, 5)
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert lines[0] == {"step": 1, "majority_ratio": RISING[1]}
    assert lines[-1]["step"] == 5 and lines[-1]["right"]["q000"] == [1.0]
