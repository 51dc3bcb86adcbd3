"""The rules of all benchmarks have names and versions and accept any answer."""

import pytest
from benchmark_questions import FIVE, question
from hypothesis import given
from hypothesis import strategies as st

from mmupt.benchmarks import BENCHMARKS, OWN_VERSION, rule_version
from mmupt.benchmarks.judge_prompts import JUDGE_VERSION
from verl_ext.answers import number_of


def test_every_rule_has_a_name() -> None:
    assert {name: [rule.name for rule in one.rules] for name, one in BENCHMARKS.items()} == {
        "mathvista": ["cleaned official", "official"],
        "mathvision": ["official"],
        "mathverse": ["rule-based"],
        "wemath": ["official"],
        "figures": [],
        "figures_hard": [],
    }


def test_every_rule_has_a_version() -> None:
    for source, benchmark in BENCHMARKS.items():
        assert all(rule_version(source, rule.name) == rule.version >= 1 for rule in benchmark.rules)
        assert rule_version(source, "own") == OWN_VERSION and rule_version(source, "judge it") == JUDGE_VERSION


@pytest.mark.parametrize(
    ("answer", "value"),
    [("3/2", 1.5), (r"\sqrt{4}", 2.0), ("12 cm", 12.0), ("x", None), ("(1,2)", None), ("1/0", None), ("1e400", None)],
)
def test_the_value_of_an_answer_is_that_of_a_real_number_or_none(answer: str, value: float | None) -> None:
    assert number_of(answer) == value


@given(st.text(max_size=30))
def test_rules_accept_any_answer(answer: str) -> None:
    asked = question("B", FIVE, "multi_choice", answer_type="float", precision=1.0)
    for benchmark in BENCHMARKS.values():
        for rule in benchmark.rules:
            assert rule.is_correct(answer, asked) in (True, False)
