"""The comparison of recipes over seeds: its numbers by hand, and what it does with runs that are missing or fail."""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from composed_recipes import shipped
from omegaconf import OmegaConf
from test_run_report import write_events

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
    read_included,
    run_folder,
    select_runs,
    take_answers_of_base,
    validation_curve,
    write_table,
)
from mmupt.training.run_cost import hours_of, read_cost
from mmupt.training.run_report import write_report
from mmupt.training.table_runs import TABLE, read_run, read_table
from mmupt_data.row_schema import Row
from mmupt_data.writer import write_dataset
from verl_ext.scores import Score
from verl_ext.scores.seed_variance import mean_over_runs

pytestmark = pytest.mark.usefixtures("undrawn")

TRUTH = ["1", "2", "3", "4"]
QUESTIONS = "the questions of the run"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [Row(f"q{number}", "made-up", f"what is {number} ?", (), "a", answer) for number, answer in enumerate(TRUTH)]
    write_dataset(tmp_path, {"test": rows}, {})
    return tmp_path


@cache
def config_text(method: str) -> str:
    return OmegaConf.to_yaml(shipped("mmupt_tiny", f"method={method}", f"data.train_files='{QUESTIONS}'"))


def finish(folder: Path, recipe: str, seed: int, right_after: int, samples: int = 2) -> None:
    """Leave a finished run: one of four questions is answered rightly before, `right_after` of them after."""
    target = run_folder(folder, recipe, seed)
    for name, right in (("before", 1), ("after", right_after)):
        texts = [f"so \\boxed{{{answer if number < right else 9}}}" for number, answer in enumerate(TRUTH)]
        responses = [Response(f"q{number}", "greedy", 0, text, 5) for number, text in enumerate(texts)]
        responses += [
            Response(f"q{number}", "sample", sample, text, 5)
            for number, text in enumerate(texts)
            for sample in range(samples)
        ]
        parameters = {"data": {str(folder / "test.parquet"): "sha"}, "samples": samples, "temperature": 1.0}
        write_responses(target / "evaluation" / f"{name}.jsonl", responses, {"model": name, **parameters})
    write_report(target)
    _, _, method = {"vote": "", "random": "mmupt_tiny-random"}.get(recipe, recipe).partition("-")
    (target / "config.yaml").write_text(config_text(method or "mmupt").replace(QUESTIONS, str(folder / "test.parquet")))


def row(text: str, recipe: str, table: int = 0) -> list[str]:
    """The cells of a recipe in the first, second or third table."""
    line = [line for line in text.splitlines() if line.startswith(f"| {recipe} ")][table]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_gains_are_averaged_over_seeds_question_by_question(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(folder, "vote", 1, right_after=3)
    finish(folder, "vote", 2, right_after=4)
    finish(folder, "random", 1, right_after=1)
    # This figure is drawn.
    monkeypatch.undo()
    text = write_table(folder, ["vote", "random"])
    # Differences, averaged over seeds: 0, 1, 1, 1/2: mean 5/8, standard deviation 0.479, of four questions. The seeds
    # differ by no more than their questions explain: variance of their mean 1/64, that of the interaction 1/64.
    assert row(text, "vote")[1:5] == ["1, 2", "25.0 → 87.5", "+62.5 ± 23.9", "+50.0, +75.0"]
    assert row(text, "random")[1:5] == ["1", "25.0 → 25.0", "+0.0 ± 0.0", "+0.0"]
    assert row(text, "vote")[5:] == ["25.0 → 87.5"] * 3 + ["0.00 → 0.00", "5.0 → 5.0"]
    assert text in (folder / "table.md").read_text()
    assert read_table(folder / TABLE)["vote"][2].trained.scores["greedy accuracy"].value == 1.0
    assert (folder / "table.png").read_bytes().startswith(b"\x89PNG")


def test_recipes_are_tested_against_the_base_and_against_the_first_or_a_named_one(folder: Path) -> None:
    finish(folder, "vote", 1, right_after=3)
    finish(folder, "random", 1, right_after=1)
    # Differences of four questions: 0, 1, 1, 0, with a standard error of 0.289: t is 1.73, of three degrees of freedom.
    text = write_table(folder, ["vote", "random"])
    # By greedy accuracy, and by mean@2, as samples are what the greedy response is; so is the majority of the base.
    assert row(text, "vote", 1)[1:9] == ["+50.0 ± 28.9", "0.18", "+0.0 ± 0.0", "1"] * 2
    assert row(text, "vote", 1)[9:] == ["+50.0 ± 28.9", "0.18"]
    assert row(text, "random", 1)[1:9] == ["+0.0 ± 0.0", "1", "-50.0 ± 28.9", "0.18"] * 2
    text = write_table(folder, ["vote", "random"], against="random")
    assert row(text, "vote", 1)[3:5] == row(text, "vote", 1)[7:9] == ["+50.0 ± 28.9", "0.18"]
    # One that has not been made yet.
    assert row(write_table(folder, ["vote"], against="soft"), "vote", 1)[3:5] == ["", ""]


def answers_of_base(folder: Path, right: tuple[int, ...], **parameters: Any) -> Path:
    """Four samples to each question by the base, of which so many are right."""
    file = folder / "base.jsonl"
    responses = [
        Response(f"q{number}", mode, sample, f"so \\boxed{{{answer if sample < right[number] else 9}}}", 5)
        for number, answer in enumerate(TRUTH)
        for mode, sample in (("greedy", 0), *(("sample", sample) for sample in range(4)))
    ]
    own = {"model": "before", "data": {str(folder / "test.parquet"): "sha"}, "samples": 4, "temperature": 1.0}
    write_responses(file, responses, {**own, **parameters})
    return file


def test_greedy_accuracy_is_tested_against_the_majority_of_more_samples_of_the_base(folder: Path) -> None:
    finish(folder, "vote", 1, right_after=4)
    finish(folder, "vote", 2, right_after=3)
    text = write_table(folder, ["vote"], base=answers_of_base(folder, (4, 4, 3, 0)))
    assert "greedy accuracy against maj@4 of the base, points" in text
    # Differences, averaged over seeds: 0, 0, 0, 1/2: mean 1/8, of four questions; the seeds' variance is their own.
    assert row(text, "vote", 1)[9] == "+12.5 ± 12.5"


def test_a_majority_of_another_base_or_of_other_questions_is_refused(folder: Path) -> None:
    finish(folder, "vote", 1, right_after=4)
    with pytest.raises(ValueError, match="differ in model: give the responses of the base"):
        write_table(folder, ["vote"], base=answers_of_base(folder, (4, 4, 4, 4), model="after"))
    with pytest.raises(ValueError, match="differ in data and temperature"):
        write_table(folder, ["vote"], base=answers_of_base(folder, (4, 4, 4, 4), data={}, temperature=0.7))


def test_the_table_has_all_finished_runs_of_its_folder(folder: Path) -> None:
    finish(folder, "vote", 2, right_after=4)
    finish(folder, "vote", 10, right_after=3)
    finish(folder, "soft", 1, right_after=3)
    finish(folder, "random", 1, right_after=1)
    text = write_table(folder, ["soft", "scrl"])
    recipes = [line.split()[1] for line in text.splitlines() if line.startswith(("| soft", "| vote", "| random"))]
    assert recipes[:3] == ["soft", "random", "vote"]
    assert row(text, "vote")[1:5] == ["2, 10", "25.0 → 87.5", "+62.5 ± 23.9", "+75.0, +50.0"]


def test_no_difference_that_varies_has_a_p_of_zero() -> None:
    assert table_sections._p(mean_over_runs([Score((1.0,) * 10**5 + (0.0,))])) == "<1e-300"
    constant = [mean_over_runs([Score((value, value))]) for value in (1.0, 0.0)]
    assert [table_sections._p(one) for one in constant] == ["0", "1"]


def test_costs_are_counted_from_the_steps_and_hours_of_a_run_with_the_papers_figures_beside(folder: Path) -> None:
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
    # 22.5 tokens in two steps of 32 prompts with 8 responses each; the file has four rows.
    assert row(text, "mmupt_tiny", 2)[1:3] == ["0", "5,760"]
    assert row(text, "mmupt_tiny-supervised", 2)[1:3] == ["4", "5,760"]
    assert row(text, "mmupt_tiny", 2)[4:] == ["53.17", "51.23", "51.97"]
    assert row(text, "mmupt_tiny-supervised", 2)[4:] == ["53.17", "53.22", "51.65"]
    assert "Qwen2.5-VL-7B: 49.47" in text
    config = OmegaConf.load(target / "config.yaml")
    config.data.train_max_samples = 3
    OmegaConf.save(config, target / "config.yaml")
    assert read_cost(target).labels == 3
    cost = read_cost(run_folder(folder, "mmupt_tiny", 1))
    assert cost.device == "core" and 0 < cost.hours < 0.1


def test_costs_of_a_baseline_are_those_of_its_stages(folder: Path) -> None:
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
    assert row(text, "mmupt_tiny-lmsi", 2)[4:] == ["49.97", "49.75", "49.78"]


def test_a_table_without_methods_of_the_paper_has_none_of_its_figures(folder: Path) -> None:
    finish(folder, "mmupt_tiny-soft", 1, right_after=3)
    text = write_table(folder)
    assert len(row(text, "mmupt_tiny-soft", 2)) == 4 and "paper" not in text


def test_votes_are_shown_at_the_start_and_the_end_of_the_steps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, last in ((1, 0.75), (2, 0.25)):
        finish(folder, "vote", seed, right_after=3)
        steps = {step: (1.0 if step <= 2 else 0.5 if step <= 6 else last) for step in range(1, 9)}
        write_events(run_folder(folder, "vote", seed) / "tensorboard", 0, {"vote/label_accuracy": steps})
    finish(folder, "random", 1, right_after=3)
    # So is this one, which has other panels.
    monkeypatch.undo()
    text = write_table(folder, ["vote", "random"])
    # Of eight steps, the first two and the last two; the other metrics are not on file, nor is any of the other recipe.
    assert row(text, "vote", 3)[1:] == ["100.0 → 50.0", "", ""]
    assert len([line for line in text.splitlines() if line.startswith("| random ")]) == 3
    assert "Votes on training questions" in text
    shutil.rmtree(folder / "vote")
    assert "Votes on training questions" not in write_table(folder)


def test_greedy_accuracy_is_shown_by_the_breakdowns_of_a_benchmark(tmp_path: Path) -> None:
    kinds = ("length", "area", "area", "area")
    rows = [Row(f"q{n}", "figures", f"what is {n} ?", (), kind, TRUTH[n]) for n, kind in enumerate(kinds)]
    write_dataset(tmp_path, {"test": rows}, {})
    finish(tmp_path, "vote", 1, right_after=2)
    finish(tmp_path, "vote", 2, right_after=4)
    text = write_table(tmp_path, ["vote"])
    assert row(text, "the base")[1:] == ["0.0", "100.0"]
    assert row(text, "vote", 3)[1:] == ["66.7", "100.0"]
    assert "| area (3) | length (1) |" in text
    assert read_table(tmp_path / TABLE)["vote"][2].trained.breakdowns == {
        ("figures", "question_type"): {("area", 3): 1.0, ("length", 1): 1.0}
    }


def test_the_picture_shows_both_kinds_of_change_by_method(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Panel] = []
    monkeypatch.setattr(table_sections, "draw", lambda panels, **_: drawn.extend(panels) or b"")
    finish(folder, "mmupt_tiny", 1, right_after=3)
    finish(folder, "mmupt_tiny", 2, right_after=4)
    finish(folder, "mmupt_tiny-random", 1, right_after=1)
    write_table(folder, ["mmupt_tiny", "mmupt_tiny-random"])
    greedy, passed, _ = drawn
    assert [greedy.title, passed.title] == ["Change of greedy accuracy, points", "Change of pass@2, points"]
    assert greedy.y_names == ["mmupt_tiny", "random"]
    # The two seeds of one row and their mean, and the one of the other.
    assert [list(points.x) for points in passed.points] == [[50.0, 75.0], [62.5], [0.0], [0.0]]
    assert [list(points.y) for points in passed.points] == [[0, 0], [0], [1], [1]]


def test_a_table_is_written_again_without_training(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_table, "train", lambda *_: pytest.fail("trained"))
    arguments = ["table", "--folder", str(folder), "--no-training"]
    with pytest.raises(SystemExit, match="has no finished run: leave --no-training out"):
        main(arguments)
    finish(folder, "mmupt_tiny", 1, right_after=3)
    main(arguments)
    assert row((folder / "table.md").read_text(), "mmupt_tiny")[4] == "+50.0"


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--against", "mmupt_tny", r"--against mmupt_tny: the table has no such row; did you mean 'mmupt_tiny'\?"),
        ("--base", "base.jsonl", r"--base: base\.jsonl with its parameters is missing"),
    ],
)
def test_what_nothing_can_be_tested_against_is_refused_before_anything_is_trained(
    folder: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: str, said: str
) -> None:
    monkeypatch.setattr(recipe_table, "train", lambda *_: pytest.fail("trained"))
    with pytest.raises(SystemExit, match=said):
        main(["table", "--folder", str(folder), option, value])


def test_runs_that_are_not_finished_are_left_out(folder: Path) -> None:
    assert write_table(folder, ["vote"]) == ""
    finish(folder, "vote", 2, right_after=2)
    run_folder(folder, "vote", 1).mkdir(parents=True)
    assert row(write_table(folder, ["vote", "random"]), "vote")[4] == "+25.0"


def test_the_base_answers_once_for_all_runs_and_no_whole_answers_are_replaced(folder: Path) -> None:
    finish(folder, "vote", 1, right_after=2)
    made, other = (run_folder(folder, "vote", seed) / BEFORE for seed in (1, 2))
    take_answers_of_base(folder, run_folder(folder, "vote", 2))
    assert read_whole(other) == read_whole(made) and read_parameters(other) == read_parameters(made)
    write_responses(other, [Response("q1", "greedy", 0, "so 1", 2)], {"model": "another"})
    take_answers_of_base(folder, run_folder(folder, "vote", 2))
    assert read_parameters(other) == {"model": "another"}
    # Those of a run that was killed while it wrote them.
    parameters_path(made).unlink()
    take_answers_of_base(folder, run_folder(folder, "vote", 1))
    assert read_parameters(made) == {"model": "another"}


def test_runs_with_other_numbers_of_samples_are_not_averaged(folder: Path) -> None:
    finish(folder, "vote", 1, right_after=2)
    finish(folder, "vote", 2, right_after=2, samples=3)
    with pytest.raises(ValueError, match="vote were not evaluated with the same number of samples"):
        write_table(folder, ["vote"])


def test_a_curve_has_the_steps_of_all_runs_averaged(folder: Path) -> None:
    name = "val-core/figures/acc/mean@1"
    for seed, accuracies in ((1, {0: 0.5, 5: 0.75, 10: 1.0}), (2, {0: 0.25, 5: 0.25}), (3, {})):
        finish(folder, "vote", seed, right_after=3)
        if accuracies:
            events = {name: accuracies, "vote/majority_ratio": {1: 0.1}}
            write_events(run_folder(folder, "vote", seed) / "tensorboard", 0, events)
    first, second, third = (read_run(run_folder(folder, "vote", seed), "vote", seed) for seed in (1, 2, 3))
    assert validation_curve([first, second, third]) == {0: 0.375, 5: 0.5}
    assert validation_curve([third]) == {}


@pytest.fixture
def published(folder: Path) -> Path:
    """The `table.json` of a folder that is there no more, with two seeds of the vote and one of random rewards."""
    elsewhere = folder / "elsewhere"
    finish(folder, "vote", 1, right_after=3)
    finish(folder, "vote", 2, right_after=4)
    finish(folder, "random", 1, right_after=1)
    write_events(run_folder(folder, "vote", 1) / "tensorboard", 0, {"vote/label_accuracy": {1: 0.25, 2: 0.75}})
    write_table(folder, ["vote", "random"])
    elsewhere.mkdir()
    for name in (TABLE, "table.md"):
        (folder / name).rename(elsewhere / name)
    for name in ("vote", "random"):
        shutil.rmtree(folder / name)
    return elsewhere / TABLE


def test_a_table_is_written_again_from_its_file_alone(folder: Path, published: Path) -> None:
    main(["table", "--folder", str(folder), "--no-training", "--include", str(published), "--against", "vote"])
    once, again = ((where / "table.md").read_text().splitlines() for where in (published.parent, folder))
    # Their titles are the folders' names; this one has its rows by name.
    assert sorted(once[1:]) == sorted(again[1:])
    assert read_table(folder / TABLE) == read_table(published)


def test_own_runs_are_tested_question_by_question_against_those_of_another_table(folder: Path, published: Path) -> None:
    finish(folder, "soft", 1, right_after=4)
    finish(folder, "vote", 3, right_after=3)
    text = write_table(folder, ["soft"], included=read_included(published, folder))
    assert row(text, "vote")[1] == "1, 2, 3"
    # Against the first row, soft: -1/4 in the last question with two of three seeds, so -1/6 on average.
    assert row(text, "vote", 1)[3] == "-16.7 ± 16.7"
    assert [row(text, recipe)[4] for recipe in ("soft", "random")] == ["+75.0", "+0.0"]


def test_a_seed_that_both_tables_have_is_refused_before_anything_is_trained(
    folder: Path, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe_table, "train", lambda *_: pytest.fail("trained"))
    finish(folder, "vote", 2, right_after=4)
    with pytest.raises(ValueError, match="has vote with seed 2, too: choose other --seeds, or name your runs with"):
        read_included(published, folder)
    with pytest.raises(ValueError, match="has random with seed 1, too"):
        read_included(published, folder / "empty", {"random": ["mmupt_tiny"]}, [1, 2])


def test_a_table_of_other_questions_is_refused_before_anything_is_trained(
    folder: Path, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe_table, "train", lambda *_: pytest.fail("trained"))
    with pytest.raises(SystemExit, match=r"runs evaluated on .*, and mmupt_tiny is evaluated on figures/test\.parquet"):
        main(["table", "--folder", str(folder), "--include", str(published)])
    # The same name with other questions in the file, known before or only after the first run.
    published.write_text(published.read_text().replace('"sha"', '"other"'))
    evaluated = {"soft": ["mmupt_tiny", f"mmupt.evaluation_files={folder / 'test.parquet'}"]}
    with pytest.raises(ValueError, match=r"runs evaluated on other questions than those of .*test\.parquet"):
        read_included(published, folder, evaluated, [1])
    finish(folder, "soft", 1, right_after=4)
    with pytest.raises(ValueError, match="vote with seed 1 was not evaluated on the questions of soft with seed 1"):
        write_table(folder, ["soft"], included=read_included(published, folder))


@pytest.mark.parametrize("content", ["", "[]", '{"bases": []}', '{"bases": [], "runs": [{"recipe": "vote"}]}'])
def test_a_file_that_is_no_table_is_refused(folder: Path, content: str) -> None:
    (folder / "other.json").write_text(content)
    with pytest.raises(SystemExit, match=r"other\.json is not a table\.json of `mmupt table`"):
        main(["table", "--folder", str(folder), "--include", str(folder / "other.json")])
    with pytest.raises(SystemExit, match=r"error: --include: .*missing\.json is missing: name the table\.json"):
        main(["table", "--folder", str(folder), "--include", str(folder / "missing.json")])


def test_a_published_table_names_no_folder_of_the_machine(folder: Path, published: Path) -> None:
    assert str(folder.parent) not in published.read_text()
    assert '"data":{"' + folder.name + '/test.parquet":"sha"}' in published.read_text()


def test_recipes_with_different_questions_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"mmupt_tiny_hard is evaluated on .*figures_hard.*make one table for each"):
        select_runs(["mmupt_tiny", "mmupt_tiny_hard"])


def test_a_recipe_that_cannot_be_compared_is_refused_before_anything_is_trained() -> None:
    with pytest.raises(RecipeError, match="there is no recipe 'mmupt_tyni'"):
        select_runs(["mmupt_tiny", "mmupt_tyni"])
    with pytest.raises(RecipeError, match="there is no method 'lsmi'; did you mean 'lmsi'"):
        select_runs(["mmupt_tiny"], ["mmupt", "lsmi"])
    with pytest.raises(RecipeError, match=r"recipe mmupt_smoke .* needs mmupt\.evaluation_files"):
        select_runs(["mmupt_tiny", "mmupt_smoke"])


def test_every_recipe_is_run_by_every_method_in_a_folder_of_its_own() -> None:
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


def test_a_variant_of_a_method_is_a_row_of_its_own_by_its_name() -> None:
    fewer = ["data.train_max_samples=64", "mmupt.name=supervised_64"]
    assert select_runs(["mmupt_tiny"], ["supervised"], fewer) == {
        "supervised_64": ["mmupt_tiny", "method=supervised", *fewer]
    }
    with pytest.raises(RecipeError, match="mmupt\\.name=supervised_64: two of the runs would share a folder"):
        select_runs(["mmupt_tiny"], ["supervised", "mmupt"], fewer)


def test_a_run_that_fails_is_named_at_the_end_and_the_others_are_made(
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
    assert row((folder / "table.md").read_text(), "mmupt_tiny-random")[4] == "+75.0, +75.0"
    (result,) = [event.text for event in shown if isinstance(event, Result)]
    assert row(result, "mmupt_tiny-random")[4] == "+75.0, +75.0"
    assert max(map(len, result.splitlines())) <= 200


def test_the_published_runs_of_the_hard_task_can_be_included(tmp_path: Path) -> None:
    file = Path(__file__).parents[2] / "docs" / "table_hard.json"
    arguments = ["--folder", str(tmp_path), "--no-training", "--include", str(file)]
    main(["table", "--recipes", "mmupt_tiny_hard", *arguments])
    assert row((tmp_path / "table.md").read_text(), "mmupt_tiny_hard")[2] == "70.1 → 82.4"
    assert str(Path.home()) not in file.read_text() and "/tmp/" not in file.read_text()
