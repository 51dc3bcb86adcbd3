"""Comparisons of two models: values calculated by hand, symmetry, refused files, and pages of untrusted text."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from mmupt.benchmarks import Question, read_questions
from mmupt.cli import main
from mmupt.evaluation.compare_files import compare_evaluations, read_evaluation, write_comparison
from mmupt.evaluation.comparison_report import as_content, render
from mmupt.evaluation.model_comparison import RESAMPLES, ModelComparison, bootstrap, compare, sign_test
from mmupt.evaluation.response_files import Response, write_responses
from mmupt.evaluation.verdicts import JudgedFile, verdicts_of
from mmupt_data.figure_task import write_figures
from mmupt_data.row_schema import PROMPT_SCHEMA, TRUTH_SCHEMA

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>| `$\\frac{ \x1b[2J\ud800"


def judged(right: Mapping[str, Sequence[bool]], name: str = "a", mode: str = "greedy", **parameters) -> JudgedFile:
    """A file with responses that are right or wrong as given; every question's ground truth is 1."""
    questions = {id_: Question(id_, "figures", f"What is {id_}?", "angle", None, "1", {}) for id_ in right}
    responses = [
        Response(id_, mode, sample, f"so \\boxed{{{1 if is_right else 2}}}")  # type: ignore[arg-type]
        for id_, samples in right.items()
        for sample, is_right in enumerate(samples)
    ]
    parameters = {"model": name, "data": {"test.parquet": "sha"}, **parameters}
    return JudgedFile(Path(f"{name}.jsonl"), parameters, questions, verdicts_of(responses, questions), [])


def differences_by_name(comparison: ModelComparison) -> dict[str, float]:
    return {paired.name: paired.difference.value for paired in comparison.scores}


def test_paired_differences_match_a_calculation_by_hand() -> None:
    a = {"q1": [True], "q2": [False], "q3": [False], "q4": [False]}
    b = {"q1": [True], "q2": [True], "q3": [True], "q4": [False]}
    comparison = compare("figures", judged(a), judged(b))
    (paired,) = comparison.scores
    assert (paired.name, paired.a.value, paired.b.value, paired.difference.value) == ("own, greedy", 0.25, 0.75, 0.5)
    # Differences 0, 1, 1, 0: the standard deviation, 0.577, divided by sqrt(4).
    assert paired.difference.standard_error == pytest.approx(0.28868, abs=1e-5)
    # The mean of four draws of 0 or 1 is 0 in 1/16 of the resamples, more than 2.5 %, so the interval is 0 to 1.
    assert paired.interval == (0.0, 1.0) and paired.not_better == pytest.approx(1 / 16, abs=0.01)
    changes = comparison.changes
    assert (changes.gained, changes.lost, changes.both_right, changes.both_wrong) == (("q2", "q3"), (), 1, 1)
    assert changes.score == "own, greedy" and changes.p_value == 0.5


def test_samples_have_their_own_scores_and_count_as_changed_by_their_mean() -> None:
    a = {"q1": [True, False], "q2": [False, False], "q3": [True, True]}
    b = {"q1": [False, True], "q2": [True, False], "q3": [False, False]}
    comparison = compare("figures", judged(a, mode="sample"), judged(b, mode="sample"))
    # A tie has no majority and counts as wrong in maj@2.
    expected = {"own, mean@2": -1 / 6, "own, pass@2": 0.0, "own, maj@2": -1 / 3}
    assert differences_by_name(comparison) == pytest.approx(expected)
    changes = comparison.changes
    assert (changes.score, changes.gained, changes.lost, changes.equal_in_part) == ("own, mean@2", ("q2",), ("q3",), 1)
    (example,) = changes.gained_examples
    assert not example.a.right["own"] and example.b.right["own"]


RIGHT = st.dictionaries(
    st.sampled_from([f"q{n}" for n in range(12)]), st.tuples(*[st.booleans()] * 6), min_size=2, max_size=12
)


def sides(right: Mapping[str, tuple[bool, ...]], k: int) -> tuple[JudgedFile, JudgedFile]:
    """Two models with `k` samples per question."""
    a = judged({id_: samples[:k] for id_, samples in right.items()}, "a", "sample")
    return a, judged({id_: samples[3 : 3 + k] for id_, samples in right.items()}, "b", "sample")


@given(RIGHT, st.integers(1, 3))
def test_swapping_the_models_flips_every_sign(right: dict[str, tuple[bool, ...]], k: int) -> None:
    a, b = sides(right, k)
    forward, backward = compare("figures", a, b), compare("figures", b, a)
    for score, swapped in zip(forward.scores, backward.scores, strict=True):
        assert score.name == swapped.name and (score.a, score.b) == (swapped.b, swapped.a)
        assert score.difference.value == -swapped.difference.value
        assert score.difference.standard_error == pytest.approx(swapped.difference.standard_error)
        assert score.interval == pytest.approx((-swapped.interval[1], -swapped.interval[0]))
    changes, swapped_changes = forward.changes, backward.changes
    assert (changes.gained, changes.lost) == (swapped_changes.lost, swapped_changes.gained)
    gained, lost = changes.gained_examples, swapped_changes.lost_examples
    assert [example.question.id for example in gained] == [example.question.id for example in lost]
    assert changes.p_value == swapped_changes.p_value


@given(RIGHT, st.integers(1, 3))
def test_a_model_does_not_differ_from_itself(right: dict[str, tuple[bool, ...]], k: int) -> None:
    a, _ = sides(right, k)
    comparison = compare("figures", a, a)
    assert comparison.scores and set(differences_by_name(comparison).values()) == {0.0}
    for paired in comparison.scores:
        assert (paired.difference.standard_error, paired.interval, paired.not_better) == (0.0, (0.0, 0.0), 1.0)
    changes = comparison.changes
    assert not changes.gained + changes.lost and changes.p_value == 1.0 and not comparison.parameters


@given(RIGHT, st.integers(1, 3), st.randoms(use_true_random=False))
def test_the_order_of_lines_does_not_matter(right: dict[str, tuple[bool, ...]], k: int, random) -> None:
    a, b = sides(right, k)
    expected = as_content([compare("figures", a, b)])
    for side in (a, b):
        random.shuffle(side.verdicts)
    assert as_content([compare("figures", a, b)]) == expected


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=12))
def test_the_interval_lies_within_the_differences_and_not_better_is_0_or_1_if_they_agree(
    right: list[tuple[bool, bool]],
) -> None:
    a, b = (judged({f"q{number}": [pair[side]] for number, pair in enumerate(right)}) for side in (0, 1))
    (paired,) = compare("figures", a, b).scores
    differences = [int(b_is_right) - int(a_is_right) for a_is_right, b_is_right in right]
    low, high = paired.interval
    assert min(differences) <= low <= high <= max(differences)
    if min(differences) > 0:
        assert paired.not_better == 0.0
    if max(differences) <= 0:
        assert paired.not_better == 1.0


def test_scores_share_resamples_whose_spread_matches_the_standard_error() -> None:
    differences = np.random.default_rng(5).choice([-1.0, 0.0, 1.0], size=(400, 1))
    means = bootstrap(np.hstack([differences, 2 * differences]))
    assert means.shape == (RESAMPLES, 2) and np.allclose(means[:, 1], 2 * means[:, 0])
    standard_error = differences.std(ddof=1) / 20
    assert means[:, 0].std() == pytest.approx(standard_error, rel=0.03)
    assert means[:, 0].mean() == pytest.approx(differences.mean(), abs=standard_error / 20)


def test_resampling_in_chunks_draws_the_same_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.arange(30.0).reshape(10, 3)
    at_once = bootstrap(differences)
    monkeypatch.setattr("mmupt.evaluation.model_comparison.DRAWN_AT_ONCE", 1_234)
    assert np.array_equal(bootstrap(differences), at_once)


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_is_the_exact_binomial_test(gained: int, lost: int) -> None:
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert sign_test(gained, lost) == pytest.approx(expected)


def test_questions_that_only_one_model_answers_are_named_and_not_scored() -> None:
    a = judged({"q1": [True, True], "q2": [False, False], "q3": [True, True], "q4": [True]}, mode="sample")
    b = judged({"q2": [True, True], "q3": [True, True], "q4": [True, False], "q5": [False, False]}, mode="sample")
    comparison = compare("figures", a, b)
    assert comparison.questions == ("q2", "q3") and differences_by_name(comparison)["own, mean@2"] == 0.5
    assert (comparison.only_a, comparison.only_b, comparison.incomplete) == (("q1",), ("q5",), ("q4",))
    text = render([comparison])
    assert "1 that only A answers are left out: `q1`." in text and "1 that only B answers are left out: `q5`." in text


def test_modes_with_different_numbers_of_samples_are_named_and_not_compared() -> None:
    a, b = judged({"q1": [True], "q2": [True]}), judged({"q1": [True], "q2": [False]})
    more_a = judged({"q1": [True] * 2, "q2": [True] * 2}, mode="sample")
    more_b = judged({"q1": [True] * 3, "q2": [True] * 3}, mode="sample")
    a.verdicts.extend(more_a.verdicts)
    b.verdicts.extend(more_b.verdicts)
    comparison = compare("figures", a, b)
    assert differences_by_name(comparison) == {"own, greedy": -0.5} and comparison.other_numbers == {"sample": (2, 3)}
    assert "mode sample are not compared, as A has 2 per question and B 3" in render([comparison])
    with pytest.raises(ValueError, match=r"a\.jsonl and b\.jsonl have no mode with the same number of responses"):
        compare("figures", more_a, judged({"q1": [True] * 3, "q2": [True] * 3}, "b", "sample"))


def test_files_that_cannot_be_compared_are_refused_by_name() -> None:
    a = judged({"q1": [True], "q2": [True]})
    with pytest.raises(ValueError, match=r"a\.jsonl and b\.jsonl have 1 common questions of figures"):
        compare("figures", a, judged({"q2": [True], "q3": [True]}, "b"))
    with pytest.raises(ValueError, match=r"a\.jsonl and b\.jsonl answer other data"):
        compare("figures", a, judged({"q1": [True], "q2": [True]}, "b", data={"other.parquet": "another"}))
    with pytest.raises(ValueError, match="A answers figures and B wemath: nothing in common"):
        compare_evaluations({"figures": a}, {"wemath": a})
    b = judged({"q1": [True], "q2": [True]}, "b", data={"test.parquet": None})
    b.questions["q2"] = Question("q2", "figures", "What is q2?", "angle", None, "7", {})
    with pytest.raises(ValueError, match="the ground truth or the options of question 'q2' differ"):
        compare("figures", a, b)


def test_differing_parameters_are_allowed_and_printed() -> None:
    a = judged({"q1": [True], "q2": [True]}, "a", temperature=0.2, seed=1)
    b = judged({"q1": [True], "q2": [True]}, "b", temperature=1.0, seed=1, instruction="`Think|")
    comparison = compare("figures", a, b)
    assert comparison.parameters == {"temperature": (0.2, 1.0), "instruction": (None, "`Think|")}
    text = render([comparison])
    assert "- `temperature`: A `0.2`, B `1.0`" in text and "- `instruction`: A `None`, B `'Think¦`" in text
    assert "- A: `a`, responses `a.jsonl`" in text


def test_we_math_scores_are_resampled_over_problems(tmp_path: Path) -> None:
    keys = ("2steps_1", "2steps_2", "2steps_multi")
    questions = {
        f"{problem} {key}": Question(f"{problem} {key}", "wemath", "?", "choice", ("x", "y"), "A", metadata)
        for problem in range(3)
        for key in keys
        for metadata in [{"ID": problem, "key": key, "knowledge concept": "area"}]
    }
    # The problems are CM, IG, and a problem without a response to its multi-step question; A is always wrong.
    right = {"0": (1, 1, 1), "1": (1, 1, 0), "2": (1, 1, None)}

    def side(name: str, model_is_right: bool) -> JudgedFile:
        responses = [
            Response(f"{problem} {key}", "greedy", 0, f"\\boxed{{{'A' if step_is_right and model_is_right else 'B'}}}")
            for problem, steps in right.items()
            for key, step_is_right in zip(keys, steps, strict=True)
            if step_is_right is not None
        ]
        parameters = {"model": name, "data": {"we.parquet": "sha"}}
        return JudgedFile(Path(name), parameters, questions, verdicts_of(responses, questions), [])

    comparison = compare("wemath", side("a", False), side("b", True))
    by_name = {paired.name: paired for paired in comparison.scores}
    assert {by_name[f"official, {name} score"].unit for name in ("strict", "loose")} == {"problems"}
    strict = by_name["official, strict score"]
    assert (strict.a.per_question, strict.b.per_question) == ((0.0, 0.0), (1.0, 0.5))
    assert strict.interval == (0.5, 1.0) and by_name["official, greedy"].difference.value == 7 / 8
    assert "official, strict score, 2 problems" in render([comparison])


@pytest.fixture
def evaluations(tmp_path: Path) -> tuple[Path, Path]:
    """Folders of two evaluations of 60 questions: 30 and 45 correct answers, 25 of them to the same questions."""
    write_figures(tmp_path / "figures", train=3, validation=3, test=60)
    data = tmp_path / "figures" / "test.parquet"
    for name, right in (("base", range(30)), ("trained", range(5, 50))):
        responses = [
            Response(id_, "greedy", 0, f"so \\boxed{{{question.truth if number in right else 999}}}", 5)
            for number, (id_, question) in enumerate(read_questions(data).items())
        ]
        parameters = {"model": f"models/{name}", "data": {str(data): "sha"}}
        write_responses(tmp_path / name / "figures.jsonl", responses, parameters)
        (tmp_path / name / "figures.verdicts.jsonl").write_text("{}\n")
    return tmp_path / "base", tmp_path / "trained"


def test_the_command_writes_markdown_json_a_plot_and_a_page(
    evaluations: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main(["compare", *map(str, evaluations), "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    text = (output / "compare.md").read_text()
    assert printed.strip() in text
    assert "By own, greedy: 20 questions gained, 5 lost, 25 both right, 10 both wrong." in text
    assert "`models/trained`" in text and "`base/figures.jsonl`" in text.replace(f"{tmp_path}/", "")
    (content,) = json.loads((output / "compare.json").read_text())["comparisons"]
    assert content["scores"]["own, greedy"]["difference"]["value"] == 0.25
    assert content["b"]["model"] == "models/trained" and len(content["changes"]["gained"]) == 20
    assert (output / "compare.png").read_bytes().startswith(b"\x89PNG")
    page = (output / "compare.html").read_text()
    assert page.count('<img alt="image of the question" src="data:image/png;base64,') == 25
    assert "&lt;image&gt;" not in page and "<image>" not in page
    assert "models/trained" in page and "own, greedy: 5 of 5 questions" in page and "answer 999" in page
    assert sorted(file.name for file in output.iterdir()) == [
        f"compare.{kind}" for kind in ("html", "json", "md", "png")
    ]


def test_files_compare_like_their_folders(evaluations: tuple[Path, Path]) -> None:
    by_folder = compare_evaluations(*map(read_evaluation, evaluations))
    by_file = compare_evaluations(*(read_evaluation(folder / "figures.jsonl") for folder in evaluations))
    assert as_content(by_file) == as_content(by_folder)


def test_a_folder_without_exactly_one_file_per_benchmark_is_refused(
    evaluations: tuple[Path, Path], tmp_path: Path
) -> None:
    base, trained = evaluations
    for suffix in (".jsonl", ".parameters.json"):
        (base / f"again{suffix}").write_bytes((base / "figures").with_suffix(suffix).read_bytes())
    (tmp_path / "empty").mkdir()
    for a, error in ((base, r"both answer figures"), (tmp_path / "empty", "has no file of responses")):
        with pytest.raises(SystemExit) as exit_:
            main(["compare", str(a), str(trained), "--output", str(tmp_path / "out")])
        assert error in str(exit_.value.code)
    assert not (tmp_path / "out").exists()


def test_hostile_ids_questions_and_responses_are_escaped(tmp_path: Path) -> None:
    ids = ["../../escape", "/etc/passwd", "<b>bold</b>"]
    text = HOSTILE.replace("\ud800", "")
    prompts = [
        {
            "id": id_,
            "data_source": "<u>$\\frac",
            "prompt": [{"role": "user", "content": text}],
            "images": [{"bytes": b"no image"}],
            "question_type": "free",
            "choices": None,
        }
        for id_ in ids
    ]
    data = tmp_path / "data" / "test.parquet"
    data.parent.mkdir()
    pq.write_table(pa.Table.from_pylist(prompts, schema=PROMPT_SCHEMA), data)
    truth = [{"id": id_, "answer": "1", "metadata": None} for id_ in ids]
    pq.write_table(pa.Table.from_pylist(truth, schema=TRUTH_SCHEMA), data.with_suffix(".truth.parquet"))
    for name, answer in (("a", "2"), ("b", "1")):
        responses = [Response(id_, "greedy", 0, f"{HOSTILE} \\boxed{{{answer}}}") for id_ in ids]
        parameters = {"model": f"{name}$\\frac<i>", "data": {str(data): "sha"}}
        write_responses(tmp_path / name / "test.jsonl", responses, parameters)
    write_comparison(
        tmp_path / "out", compare_evaluations(read_evaluation(tmp_path / "a"), read_evaluation(tmp_path / "b"))
    )
    page = (tmp_path / "out" / "compare.html").read_text()
    assert page.count("&lt;script&gt;alert(1)") == 3 * 3 and "an image that cannot be decoded" in page
    for tag in ("<script", "<img src=x", "<u>", "<i>", "<b>bold"):
        assert tag not in page
    assert "://" not in page and len(list((tmp_path / "out").iterdir())) == 4
