"""An inequality and its interval are the same answer."""

import pytest

from verl_ext.answers import canonical, classify, correct, equivalent


@pytest.mark.parametrize(
    ("inequality", "interval"),
    [
        ("-1 < x < 4", "(-1, 4)"),
        (r"x \in (-1, 4)", "4 > x > -1"),
        (r"2x + 1 \le 7", r"(-\infty, 3]"),
        (r"x > -\frac14", r"\left(-\frac{1}{4}, +\infty\right)"),
        (r"-\sqrt2 \le x \le \sqrt2", r"[-\sqrt{2}, \sqrt{2}]"),
        (r"x < -2 \text{ or } x > 2", r"(-\infty, -2) \cup (2, \infty)"),
        (r"|x| > 2", r"(2, \infty) \cup (-\infty, -2)"),
        (r"x \neq 3", r"(-\infty, 3) \cup (3, \infty)"),
        (r"x \le 3, x \ge 1", "[1, 3]"),
        ("0 < f(x) < 1", "(0, 1)"),
    ],
)
def test_an_inequality_equals_its_interval_in_a_vote_and_against_a_ground_truth(inequality: str, interval: str) -> None:
    assert len(classify([inequality, interval]).members) == 1
    assert correct(inequality, interval) and correct(interval, inequality)
    # Without a group or ground truth, (-1, 4) may be a point.
    assert not equivalent(inequality, interval)


@pytest.mark.parametrize(
    ("inequality", "interval"),
    [
        ("-1 < x < 4", "[-1, 4)"),
        ("-1 < x < 4", "(-1, 5)"),
        ("x > 3", r"[3, \infty)"),
        ("x > 3", r"(-\infty, 3)"),
        ("x > 3", "3"),
        (r"x < -2 \text{ or } x > 2", r"(-2, 2)"),
        (r"x < 1 \text{ or } x = 5", r"(-\infty, 1)"),
        ("x > 1, y > 2", r"(1, \infty)"),
        ("x > a", r"(a, \infty)"),
        ("x < 3, x < 5", r"(-\infty, 3)"),
    ],
)
def test_an_inequality_does_not_equal_other_intervals(inequality: str, interval: str) -> None:
    assert len(classify([inequality, interval]).members) == 2
    assert not correct(inequality, interval)


def test_an_interval_stays_apart_from_two_inequalities_that_may_mean_it() -> None:
    assert [len(members) for members in classify(["-1<x<4", "-1<y<4", "(-1, 4)"]).members] == [1, 1, 1]


def test_brackets_without_an_inequality_stay_a_point() -> None:
    assert canonical("(-1, 4)").instead is None
    assert canonical("-1 < x < 4").instead == canonical("(-1, 4)")
