"""Tables that compare recipes over seeds: values calculated by hand, and runs that are missing or fail."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from finished_runs import TRUTH, cells, finish, write_events, write_test_rows
from omegaconf import OmegaConf

from mmupt.baselines.stage_runner import stages_folder, write_summary
from mmupt.cli import main
from mmupt.compose import RecipeError
from mmupt.console import Result
from mmupt.console.events import Event
from mmupt.evaluation.response_files import Response, parameters_path, read_parameters, read_whole, write_responses
from mmupt.reports.plots import Panel
from mmupt.training import recipe_table, table_sections
from mmupt.training.recipe_table import (
    BEFORE,
    run_folder,
    select_runs,
    take_answers_of_base,
    validation_curve,
    write_table,
)
from mmupt.training.run_cost import hours_of, read_cost
from mmupt.training.table_runs import TABLE, read_run, read_table
from mmupt_data.row_schema import Row
from mmupt_data.writer import write_dataset
from verl_ext.scores import Score
from verl_ext.scores.seed_variance import mean_over_runs

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_test_rows(tmp_path)


def test_gains_are_averaged_over_seeds_question_by_question(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(folder, "vote", 1, right_after=3)
    finish(folder, "vote", 2, right_after=4)
    finish(folder, "random", 1, right_after=1)
    # Draw the figure.
    monkeypatch.undo()
    text = write_table(folder, ["vote", "random"])
    # Differences of the four questions, averaged over seeds: 0, 1, 1, 1/2; mean 5/8, standard deviation 0.479. Seeds
    # add no variance: the variance of their mean, 1/64, equals the interaction of seeds and questions.
    assert cells(text, "vote")[1:5] == ["1, 2", "25.0 → 87.5", "+62.5 ± 23.9", "+50.0, +75.0"]
    assert cells(text, "random")[1:5] == ["1", "25.0 → 25.0", "+0.0 ± 0.0", "+0.0"]
    assert cells(text, "vote")[5:] == ["25.0 → 87.5"] * 3 + ["0.00 → 0.00", "5.0 → 5.0"]
    assert text in (folder / "table.md").read_text()
    assert read_table(folder / TABLE)["vote"][2].trained.scores["greedy accuracy"].value == 1.0
    assert (folder / "table.png").read_bytes().startswith(b"\x89PNG")


def test_recipes_are_tested_against_the_base_and_against_the_first_or_a_named_recipe(folder: Path) -> None:
    finish(folder, "vote", 1, right_after=3)
    finish(folder, "random", 1, right_after=1)
    # Differences of four questions: 0, 1, 1, 0; standard error 0.289, so t is 1.73 with three degrees of freedom.
    text = write_table(folder, ["vote", "random"])
    # Greedy accuracy, mean@2 and the majority of the base agree, because all samples equal the greedy response.
    assert cells(text, "vote", 1)[1:9] == ["+50.0 ± 28.9", "0.18", "+0.0 ± 0.0", "1"] * 2
    assert cells(text, "vote", 1)[9:] == ["+50.0 ± 28.9", "0.18"]
    assert cells(text, "random", 1)[1:9] == ["+0.0 ± 0.0", "1", "-50.0 ± 28.9", "0.18"] * 2
    text = write_table(folder, ["vote", "random"], against="random")
    assert cells(text, "vote", 1)[3:5] == cells(text, "vote", 1)[7:9] == ["+50.0 ± 28.9", "0.18"]
    # A recipe without runs.
    assert cells(write_table(folder, ["vote"], against="soft"), "vote", 1)[3:5] == ["", ""]


def answers_of_base(folder: Path, right: tuple[int, ...], **parameters: Any) -> Path:
    """Write four samples of the base per question, `right` of them correct."""
    file = folder / "base.jsonl"
    responses = [
        Response(f"q{number}", mode, sample, f"so \\boxed{{{answer if sample < right[number] else 9}}}", 5)
        for number, answer in enumerate(TRUTH)
        for mode, sample in (("greedy", 0), *(("sample", sample) for sample in range(4)))
    ]
    defaults = {"model": "before", "data": {str(folder / "test.parquet"): "sha"}, "samples": 4, "temperature": 1.0}
    write_responses(file, responses, {**defaults, **parameters})
    return file


def test_greedy_accuracy_is_tested_against_the_majority_of_more_samples_of_the_base(folder: Path) -> None:
    finish(folder, "vote", 1, right_after=4)
    finish(folder, "vote", 2, right_after=3)
    text = write_table(folder, ["vote"], base=answers_of_base(folder, (4, 4, 3, 0)))
    assert "greedy accuracy against maj@4 of the base, points" in text
    # Differences of the four questions, averaged over seeds: 0, 0, 0, 1/2; mean 1/8. Seeds add no variance.
    assert cells(text, "vote", 1)[9] == "+12.5 ± 12.5"


def test_base_responses_of_another_model_or_other_questions_are_refused(folder: Path) -> None:
    finish(folder, "vote", 1, right_after=4)
    with pytest.raises(ValueError, match="differ in model: give the responses of the base"):
        write_table(folder, ["vote"], base=answers_of_base(folder, (4, 4, 4, 4), model="after"))
    with pytest.raises(ValueError, match="differ in data and temperature"):
        write_table(folder, ["vote"], base=answers_of_base(folder, (4, 4, 4, 4), data={}, temperature=0.7))


def test_the_table_has_all_finished_runs_of_its_folder_by_name_and_seed(folder: Path) -> None:
    finish(folder, "vote", 2, right_after=4)
    finish(folder, "vote", 10, right_after=3)
    finish(folder, "soft", 1, right_after=3)
    finish(folder, "random", 1, right_after=1)
    text = write_table(folder, ["soft", "scrl"])
    recipes = [line.split()[1] for line in text.splitlines() if line.startswith(("| soft", "| vote", "| random"))]
    assert recipes[:3] == ["soft", "random", "vote"]
    assert cells(text, "vote")[1:5] == ["2, 10", "25.0 → 87.5", "+62.5 ± 23.9", "+75.0, +50.0"]


def test_a_p_value_that_underflows_is_not_shown_as_zero() -> None:
    assert table_sections._p(mean_over_runs([Score((1.0,) * 10**5 + (0.0,))])) == "<1e-300"
    constant = [mean_over_runs([Score((value, value))]) for value in (1.0, 0.0)]
    assert [table_sections._p(difference) for difference in constant] == ["0", "1"]


def test_costs_are_shown_beside_the_papers_scores(folder: Path) -> None:
    for recipe in ("mmupt_tiny", "mmupt_tiny-supervised"):
        finish(folder, recipe, 1, right_after=3)
        target = run_folder(folder, recipe, 1)
        write_events(target / "tensorboard", 0, {"response_length/mean": {1: 10.0, 2: 12.5}})
        config = OmegaConf.load(target / "config.yaml")
        config.mmupt.run_folder = str(target)
        for _ in range(2):
            with hours_of(config):
                pass
    text = write_table(folder, ["mmupt_tiny", "mmupt_tiny-supervised"])
    # Mean lengths of 10 and 12.5 tokens in two steps of 32 prompts with 8 responses each; the file has four rows.
    assert cells(text, "mmupt_tiny", 2)[1:3] == ["0", "5,760"]
    assert cells(text, "mmupt_tiny-supervised", 2)[1:3] == ["4", "5,760"]
    assert cells(text, "mmupt_tiny", 2)[4:] == ["53.17", "51.23", "51.97"]
    assert cells(text, "mmupt_tiny-supervised", 2)[4:] == ["53.17", "53.22", "51.65"]
    assert "Qwen2.5-VL-7B: 49.47" in text
    config = OmegaConf.load(target / "config.yaml")
    config.data.train_max_samples = 3
    OmegaConf.save(config, target / "config.yaml")
    assert read_cost(target).labels == 3
    cost = read_cost(run_folder(folder, "mmupt_tiny", 1))
    assert cost.device == "core" and 0 < cost.hours < 0.1


def test_the_cost_of_a_baseline_is_the_sum_over_its_stages(folder: Path) -> None:
    for recipe, labels in (("mmupt_tiny-lmsi", 0), ("mmupt_tiny-rejection_sft", 90)):
        finish(folder, recipe, 1, right_after=3)
        stages = stages_folder(run_folder(folder, recipe, 1))
        responses = [Response("q1", "sample", sample, "so 1", 5) for sample in range(4)]
        write_responses(stages / "samples.jsonl", responses, {})
        write_responses(stages / "questions" / "responses" / "questions.jsonl", responses, {})
        write_summary(stages, "responses.parquet", rows=90, written=2)
        cost = read_cost(run_folder(folder, recipe, 1))
        assert (cost.labels, cost.tokens) == (labels, 40)
    text = write_table(folder, ["mmupt_tiny-lmsi"])
    assert cells(text, "mmupt_tiny-lmsi", 2)[4:] == ["49.97", "49.75", "49.78"]


def test_a_table_without_methods_of_the_paper_shows_no_scores_of_the_paper(folder: Path) -> None:
    finish(folder, "mmupt_tiny-soft", 1, right_after=3)
    text = write_table(folder)
    assert len(cells(text, "mmupt_tiny-soft", 2)) == 4 and "paper" not in text


def test_vote_metrics_are_shown_for_the_first_and_the_last_steps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, last in ((1, 0.75), (2, 0.25)):
        finish(folder, "vote", seed, right_after=3)
        steps = {step: (1.0 if step <= 2 else 0.5 if step <= 6 else last) for step in range(1, 9)}
        write_events(run_folder(folder, "vote", seed) / "tensorboard", 0, {"vote/label_accuracy": steps})
    finish(folder, "random", 1, right_after=3)
    # Draw this figure, which has other panels.
    monkeypatch.undo()
    text = write_table(folder, ["vote", "random"])
    # The first two and the last two of eight steps. The other metrics and the other recipe have no event files.
    assert cells(text, "vote", 3)[1:] == ["100.0 → 50.0", "", ""]
    assert len([line for line in text.splitlines() if line.startswith("| random ")]) == 3
    assert "Votes on training questions" in text
    shutil.rmtree(folder / "vote")
    assert "Votes on training questions" not in write_table(folder)


def test_greedy_accuracy_is_broken_down_by_the_categories_of_a_benchmark(tmp_path: Path) -> None:
    kinds = ("length", "area", "area", "area")
    rows = [Row(f"q{n}", "figures", f"what is {n} ?", (), kind, TRUTH[n]) for n, kind in enumerate(kinds)]
    write_dataset(tmp_path, {"test": rows}, {})
    finish(tmp_path, "vote", 1, right_after=2)
    finish(tmp_path, "vote", 2, right_after=4)
    text = write_table(tmp_path, ["vote"])
    assert cells(text, "the base")[1:] == ["0.0", "100.0"]
    assert cells(text, "vote", 3)[1:] == ["66.7", "100.0"]
    assert "| area (3) | length (1) |" in text
    assert read_table(tmp_path / TABLE)["vote"][2].trained.breakdowns == {
        ("figures", "question_type"): {("area", 3): 1.0, ("length", 1): 1.0}
    }


def test_the_plot_shows_changes_of_greedy_accuracy_and_pass_at_k_per_method(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Panel] = []
    monkeypatch.setattr(table_sections, "draw", lambda panels, **_: drawn.extend(panels) or b"")
    finish(folder, "mmupt_tiny", 1, right_after=3)
    finish(folder, "mmupt_tiny", 2, right_after=4)
    finish(folder, "mmupt_tiny-random", 1, right_after=1)
    write_table(folder, ["mmupt_tiny", "mmupt_tiny-random"])
    greedy, passed, _ = drawn
    assert [greedy.title, passed.title] == ["Change of greedy accuracy, points", "Change of pass@2, points"]
    assert greedy.y_names == ["mmupt_tiny", "random"]
    # Two seeds of the first row and their mean, then the seed of the second row and its mean.
    assert [list(points.x) for points in passed.points] == [[50.0, 75.0], [62.5], [0.0], [0.0]]
    assert [list(points.y) for points in passed.points] == [[0, 0], [0], [1], [1]]


def test_a_table_is_written_again_without_training(folder: Path, no_training: None) -> None:
    arguments = ["table", "--folder", str(folder), "--no-training"]
    with pytest.raises(SystemExit, match="has no finished run: leave --no-training out"):
        main(arguments)
    finish(folder, "mmupt_tiny", 1, right_after=3)
    main(arguments)
    assert cells((folder / "table.md").read_text(), "mmupt_tiny")[4] == "+50.0"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--against", "mmupt_tny", r"--against mmupt_tny: the table has no such row; did you mean 'mmupt_tiny'\?"),
        ("--base", "base.jsonl", r"--base: base\.jsonl with its parameters is missing"),
    ],
)
def test_a_missing_reference_is_refused_before_training(
    folder: Path, no_training: None, option: str, value: str, message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        main(["table", "--folder", str(folder), option, value])


def test_unfinished_runs_are_left_out(folder: Path) -> None:
    assert write_table(folder, ["vote"]) == ""
    finish(folder, "vote", 2, right_after=2)
    run_folder(folder, "vote", 1).mkdir(parents=True)
    assert cells(write_table(folder, ["vote", "random"]), "vote")[4] == "+25.0"


def test_runs_share_the_responses_of_the_base_and_keep_complete_files(folder: Path) -> None:
    finish(folder, "vote", 1, right_after=2)
    first, second = (run_folder(folder, "vote", seed) / BEFORE for seed in (1, 2))
    take_answers_of_base(folder, run_folder(folder, "vote", 2))
    assert read_whole(second) == read_whole(first) and read_parameters(second) == read_parameters(first)
    write_responses(second, [Response("q1", "greedy", 0, "so 1", 2)], {"model": "another"})
    take_answers_of_base(folder, run_folder(folder, "vote", 2))
    assert read_parameters(second) == {"model": "another"}
    # A run that was killed before it wrote its parameters takes the complete file.
    parameters_path(first).unlink()
    take_answers_of_base(folder, run_folder(folder, "vote", 1))
    assert read_parameters(first) == {"model": "another"}


def test_runs_with_different_numbers_of_samples_are_refused(folder: Path) -> None:
    finish(folder, "vote", 1, right_after=2)
    finish(folder, "vote", 2, right_after=2, samples=3)
    with pytest.raises(ValueError, match="vote were not evaluated with the same number of samples"):
        write_table(folder, ["vote"])


def test_a_finished_run_without_its_config_is_named(folder: Path) -> None:
    finish(folder, "vote", 1, right_after=2)
    (run_folder(folder, "vote", 1) / "config.yaml").unlink()
    with pytest.raises(SystemExit, match=r"error: .*vote/seed_1/config\.yaml is missing: restore it, or move the run"):
        main(["table", "--folder", str(folder), "--no-training"])


def test_a_validation_curve_averages_the_steps_that_all_validated_runs_have(folder: Path) -> None:
    name = "val-core/figures/acc/mean@1"
    for seed, accuracies in ((1, {0: 0.5, 5: 0.75, 10: 1.0}), (2, {0: 0.25, 5: 0.25}), (3, {})):
        finish(folder, "vote", seed, right_after=3)
        if accuracies:
            events = {name: accuracies, "vote/majority_ratio": {1: 0.1}}
            write_events(run_folder(folder, "vote", seed) / "tensorboard", 0, events)
    first, second, third = (read_run(run_folder(folder, "vote", seed), "vote", seed) for seed in (1, 2, 3))
    assert validation_curve([first, second, third]) == {0: 0.375, 5: 0.5}
    assert validation_curve([third]) == {}


def test_recipes_with_different_questions_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"mmupt_tiny_hard is evaluated on .*figures_hard.*make one table for each"):
        select_runs(["mmupt_tiny", "mmupt_tiny_hard"])


def test_recipes_and_methods_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(RecipeError, match="there is no recipe 'mmupt_tyni'"):
        select_runs(["mmupt_tiny", "mmupt_tyni"])
    with pytest.raises(RecipeError, match="there is no method 'lsmi'; did you mean 'lmsi'"):
        select_runs(["mmupt_tiny"], ["mmupt", "lsmi"])
    with pytest.raises(RecipeError, match=r"recipe mmupt_smoke .* needs mmupt\.evaluation_files"):
        select_runs(["mmupt_tiny", "mmupt_smoke"])


def test_every_recipe_runs_with_every_method_in_its_own_folder() -> None:
    assert select_runs(["mmupt_tiny", "mmupt_tiny_lora"], ["mmupt", "random"], ["mmupt.evaluation_samples=2"]) == {
        name: [recipe, f"method={method}", "mmupt.evaluation_samples=2"]
        for name, recipe, method in (
            ("mmupt_tiny", "mmupt_tiny", "mmupt"),
            ("mmupt_tiny-random", "mmupt_tiny", "random"),
            ("mmupt_tiny_lora", "mmupt_tiny_lora", "mmupt"),
            ("mmupt_tiny_lora-random", "mmupt_tiny_lora", "random"),
        )
    }
    assert select_runs(["mmupt_tiny"]) == {"mmupt_tiny": ["mmupt_tiny"]}


def test_a_named_variant_of_a_method_gets_its_own_row() -> None:
    fewer_rows = ["data.train_max_samples=64", "mmupt.name=supervised_64"]
    assert select_runs(["mmupt_tiny"], ["supervised"], fewer_rows) == {
        "supervised_64": ["mmupt_tiny", "method=supervised", *fewer_rows]
    }
    with pytest.raises(RecipeError, match="mmupt\\.name=supervised_64: two of the runs would share a folder"):
        select_runs(["mmupt_tiny"], ["supervised", "mmupt"], fewer_rows)


def test_a_failed_run_is_named_at_the_end_and_the_other_runs_are_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(target: Path, seed: int, recipe_and_overrides: list[str]) -> bool:
        recipe, method, override = recipe_and_overrides
        assert recipe == "mmupt_tiny" and override == "trainer.total_training_steps=3"
        if method == "method=mmupt" and seed == 1:
            return False
        finish(folder, target.parent.name, seed, right_after=4)
        return True

    monkeypatch.setattr(recipe_table, "train", train)
    shown: list[Event] = []
    monkeypatch.setattr("mmupt.console.emit", shown.append)
    arguments = ["--methods", "mmupt", "random", "--seeds", "1", "2", "--folder", str(folder)]
    with pytest.raises(SystemExit, match=r"these runs failed.*mmupt_tiny/seed_1"):
        main(["table", *arguments, "trainer.total_training_steps=3"])
    assert cells((folder / "table.md").read_text(), "mmupt_tiny-random")[4] == "+75.0, +75.0"
    (result,) = [event.text for event in shown if isinstance(event, Result)]
    assert cells(result, "mmupt_tiny-random")[4] == "+75.0, +75.0"
    assert max(map(len, result.splitlines())) <= 200
