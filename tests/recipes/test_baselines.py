"""The stages of each method: what is asked, what is written of it, that no truth is opened, that kills cost little."""

import hashlib
import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from watched import watch_truth

from data.figures import draw, encode_png, sample_figures
from data.schema import Row, prompts_path
from data.writing import write_dataset
from recipes.mmupt import train
from recipes.mmupt.baselines import run
from recipes.mmupt.baselines.methods import SETS
from recipes.mmupt.baselines.rows import draw_rows
from recipes.mmupt.baselines.settings import METHODS, PROMPTS, read_baseline
from recipes.mmupt.baselines.tables import PAIRS, RESPONSES
from recipes.mmupt.compose import CONFIG_FOLDER, RecipeError, load_recipe, recipes
from recipes.mmupt.evaluation.generation import Answered, Asked, Kept
from recipes.mmupt.evaluation.responses import Response
from recipes.mmupt.evaluation.settings import Settings
from recipes.mmupt.synthesis import stages
from recipes.mmupt.synthesis.prompts import read_prompt
from recipes.mmupt.tiny.demonstrations import DESCRIBE, JUDGE
from verl_ext.datasets.truth import read_truth, sidecar_of

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "recipes" / "mmupt" / "tiny" / "model"
PICTURES = [encode_png(draw(figure)) for figure in sample_figures("train", 4, seed=0)]
ROWS = [
    Row("a", "made-up", "<image>what is the sum ?", PICTURES[:1], "kind", "2"),
    Row("b", "made-up", "<image>and <image> ?", tuple(PICTURES[1:3]), "kind", "0.5"),
    Row("c", "made-up", "<image>how long ?", (PICTURES[3],), "kind", "9"),
]
LABEL_FREE = [method for method in METHODS if method != "rejection_sft"]
# What the policy answers to a row, in every group: a majority of 2 for a, one of 1/2 for b, a tie for c.
ANSWERS = {"a": ["2", "2", "3", "2"], "b": ["1/2", "7", "0.5", None], "c": ["4", "4", "5", "5"]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "data", {"train": ROWS}, {})
    return prompts_path(tmp_path / "data", "train")


@dataclass
class Engine:
    """Stands for vLLM: answers as `ANSWERS` says, believes in 2 and 0.5, and fails after so many requests."""

    fails_after: int = 10**9
    asked: list[Asked] = field(default_factory=list)

    def answers(self, settings: Settings, asked: list[Asked], _kept: Kept) -> Iterator[Answered]:
        # Finished in another order than asked.
        for one in reversed(asked):
            if len(self.asked) == self.fails_after:
                raise KeyboardInterrupt
            self.asked.append(one)
            texts = [self.says(one, number) for number in range(settings.samples)]
            yield Answered(one.name, tuple(Response(one.row["id"], one.mode, i, t, 5) for i, t in enumerate(texts)))

    def says(self, one: Asked, number: int) -> str:
        id_ = one.row["id"]
        if one.name == "questions":
            return f"how many {('red', 'green', 'blue')[number]} bars are in figure {id_[0]} ?"
        if one.name == "samples":
            answer = ANSWERS[id_[0]][number % 4]
            return "I give up ." if answer is None else f"so {number} \\boxed{{{answer}}}"
        if one.name == "verdicts":
            # Three of four times the same.
            believes = f" is {'2' if id_[0] == 'a' else '0.5'} right" in content(one)
            return "yes" if believes != (number == 3) else "no"
        if one.name == "dispreferred":
            return "a blur ." if id_ != "c" else "figure c ."
        return f"figure {id_} ."

    def of(self, stage: str) -> list[Asked]:
        return [one for one in self.asked if one.name == stage]


def content(one: Asked) -> str:
    return str(one.row["prompt"][0]["content"])


@cache
def composed(method: str, overrides: tuple[str, ...]) -> DictConfig:
    """Small, whatever the recipe; composing takes a second."""
    keys = ["mmupt.baseline.rows=null", "actor_rollout_ref.rollout.n=4", "mmupt.baseline.verdict_samples=4"]
    keys += [f"actor_rollout_ref.model.path={MODEL}", "data.instruction='think !'"]
    return load_recipe(f"mmupt_tiny_{method}", [*keys, *overrides])[0]


def recipe(method: str, data: Path, folder: Path, *overrides: str) -> DictConfig:
    config = deepcopy(composed(method, overrides))
    config.data.train_files, config.mmupt.run_folder = str(data), str(folder)
    return config


@pytest.fixture
def make(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[dict], Engine]]:
    """Makes a set of a method, and returns its rows and the engine that was asked."""

    def make(
        method: str,
        *overrides: str,
        number: int = 0,
        engine: Engine | None = None,
        folder: str = "run",
        seed: int = 1,
    ) -> tuple[list[dict[str, Any]], Engine]:
        engine = engine or Engine()
        monkeypatch.setattr(stages, "answers", engine.answers)
        config = recipe(method, data, tmp_path / folder, *overrides)
        config.mmupt.seed = seed
        file = run.make_set(config, number, str(MODEL))
        return pq.read_table(file).to_pylist(), engine

    return make


def texts(rows: list[dict[str, Any]], column: str = "response") -> dict[str, str]:
    return {row["id"]: row[column] for row in rows}


def test_rejection_sft_trains_on_responses_that_are_right_by_label(make) -> None:
    rows, _ = make("rejection_sft")
    assert list(texts(rows)) == ["a-0", "a-1", "a-3", "b-0", "b-2"]


def test_lmsi_trains_on_responses_that_agree_with_half_of_the_group(make) -> None:
    rows, _ = make("lmsi")
    assert texts(rows) == {
        "a-0": "so 0 \\boxed{2}",
        "a-1": "so 1 \\boxed{2}",
        "a-3": "so 3 \\boxed{2}",
        "b-0": "so 0 \\boxed{1/2}",
        "b-2": "so 2 \\boxed{0.5}",
    }
    assert [row["baseline"]["score"] for row in rows] == [0.75, 0.75, 0.75, 0.5, 0.5]
    assert [row["id"] for row in make("lmsi", "reward.reward_kwargs.vote.min_share=0.6", folder="sure")[0]] == [
        "a-0",
        "a-1",
        "a-3",
    ]


def test_a_row_has_all_that_was_asked_and_says_where_it_comes_from(make, tmp_path: Path) -> None:
    rows, engine = make("lmsi")
    assert pq.read_schema(tmp_path / "run" / "stages" / "responses.parquet").equals(RESPONSES)
    (b,) = [one for one in engine.asked if one.row["id"] == "b"]
    assert rows[3] == {
        "id": "b-0",
        "prompt": [{"role": "user", "content": "<image>and <image> ? think !"}],
        "images": [{"bytes": PICTURES[1]}, {"bytes": PICTURES[2]}],
        "response": "so 0 \\boxed{1/2}",
        "baseline": {
            "method": "lmsi",
            "stage": "samples",
            "model": str(MODEL),
            "sample": 0,
            "prompt_sha256": hashlib.sha256(b"and  ? think !").hexdigest(),
            "score": 0.5,
        },
    }
    assert (b.row["prompt"], b.row["images"]) == (rows[3]["prompt"], rows[3]["images"])


def test_srlm_prefers_what_it_judges_best_to_what_it_judges_worst(make, tmp_path: Path) -> None:
    rows, engine = make("srlm")
    # Of c it believes nothing, so that no response is better than another.
    assert texts(rows, "chosen") == {"a-0": "so 0 \\boxed{2}", "b-0": "so 0 \\boxed{1/2}"}
    assert texts(rows, "rejected") == {"a-0": "so 2 \\boxed{3}", "b-0": "so 1 \\boxed{7}"}
    assert [row["baseline"]["score"] for row in rows] == [0.75, 0.75]
    assert pq.read_schema(tmp_path / "run" / "stages" / "pairs.parquet").equals(PAIRS)
    # Equal answers are judged once, and what is no answer is not.
    asked = [content(one) for one in engine.of("verdicts")]
    assert sorted(asked) == sorted(
        [
            *("<image>what is the sum ? is 2 right ?", "<image>what is the sum ? is 3 right ?"),
            *("<image><image>and   ? is 0.5 right ?", "<image><image>and   ? is 7 right ?"),
            *("<image>how long ? is 4 right ?", "<image>how long ? is 5 right ?"),
        ]
    )


def test_srlm_judges_whole_responses_by_points(make, tmp_path: Path) -> None:
    class Judge(Engine):
        def says(self, one: Asked, number: int) -> str:
            if one.name != "verdicts":
                return super().says(one, number)
            return f"Score: {one.row['id'].rpartition('-')[2]}"

    mine = tmp_path / "mine.txt"
    mine.write_text("{question} : {response} !")
    keys = [f"mmupt.baseline.prompts.judge={mine}", "mmupt.baseline.judge_scale=points"]
    rows, engine = make("srlm", *keys, engine=Judge())
    assert "<image>what is the sum ? : so 2 \\boxed{3} !" in map(content, engine.of("verdicts"))
    assert texts(rows, "chosen")["b-2"] == "so 2 \\boxed{0.5}"
    assert [row["baseline"]["score"] for row in rows] == [3.0, 2.0, 3.0]


def test_genixer_trains_on_its_own_questions_with_answers_that_it_believes(make, tmp_path: Path) -> None:
    rows, engine = make("genixer", "data.instruction=null")
    assert texts(rows) == {
        "a-direct-r0-0-0": "so 0 \\boxed{2}",
        "a-direct-r0-0-1": "so 1 \\boxed{2}",
        "a-direct-r0-0-3": "so 3 \\boxed{2}",
        "b-direct-r0-0-0": "so 0 \\boxed{1/2}",
        "b-direct-r0-0-2": "so 2 \\boxed{0.5}",
    }
    assert rows[0]["prompt"][0]["content"] == "<image>how many red bars are in figure a ?"
    assert {row["baseline"]["score"] for row in rows} == {0.75}
    # The questions that are there play no part.
    assert not any("what is the sum" in content(one) for one in engine.asked)
    assert make("genixer", "mmupt.baseline.min_yes=0.75", folder="sure", engine=Sure())[0]
    with pytest.raises(RecipeError, match=r"responses\.parquet: nothing is kept of 3 rows"):
        make("genixer", "mmupt.baseline.min_yes=0.75", folder="unsure")


class Sure(Engine):
    def says(self, one: Asked, number: int) -> str:
        return super().says(one, 0 if one.name == "verdicts" else number)


def test_stic_prefers_descriptions_of_clean_images_to_those_of_spoilt_ones(make) -> None:
    rows, engine = make("stic")
    # Of c both descriptions are the same.
    assert texts(rows, "chosen") == {"a-0": "figure a .", "b-0": "figure b ."}
    assert set(texts(rows, "rejected").values()) == {"a blur ."}
    assert rows[1]["prompt"] == [{"role": "user", "content": f"<image><image>{DESCRIBE}"}]
    assert [image["bytes"] for image in rows[1]["images"]] == PICTURES[1:3]
    for clean, spoilt in zip(engine.of("preferred"), engine.of("dispreferred"), strict=True):
        for one, other in zip(clean.row["images"], spoilt.row["images"], strict=True):
            assert one["bytes"] in PICTURES and other["bytes"] not in PICTURES
            assert Image.open(BytesIO(other["bytes"])).size == Image.open(BytesIO(one["bytes"])).size


def test_stic_asks_with_a_bad_prompt_of_clean_images_where_that_is_drawn(make, tmp_path: Path) -> None:
    good, bad, plain = (tmp_path / f"{name}.txt" for name in ("good", "bad", "plain"))
    good.write_text("look closely !\nthen describe .\n")
    bad.write_text("make it up !\n\ndream !\n")
    plain.write_text("describe .\nsay what there is .\n")
    names = {"describe_well": good, "describe_badly": bad, "describe": plain}
    keys = [f"mmupt.baseline.prompts.{name}={file}" for name, file in names.items()]
    rows, engine = make("stic", *keys, "mmupt.baseline.bad_prompt_share=1.0")
    assert {content(one).replace("<image>", "") for one in engine.of("preferred")} == {
        "look closely !\nthen describe ."
    }
    assert {content(one).replace("<image>", "") for one in engine.of("dispreferred")} <= {"make it up !", "dream !"}
    assert all(image["bytes"] in PICTURES for one in engine.of("dispreferred") for image in one.row["images"])
    # The prompt that is trained on is neither of the two.
    asked = {row["prompt"][0]["content"].replace("<image>", "") for row in rows}
    assert asked <= {"describe .", "say what there is ."}
    # By half, each image gets one or the other.
    kinds = set()
    for seed in range(6):
        half = make("stic", *keys, "mmupt.baseline.bad_prompt_share=0.5", folder=f"half_{seed}", seed=seed)
        (one, *_) = half[1].of("dispreferred")
        is_clean = one.row["images"][0]["bytes"] in PICTURES
        assert is_clean == (content(one).replace("<image>", "") in ("make it up !", "dream !"))
        kinds.add(is_clean)
    assert kinds == {True, False}


def test_stic_then_trains_on_responses_after_descriptions_of_its_own(make) -> None:
    rows, engine = make("stic", number=1)
    assert len(rows) == 12 and rows[4]["id"] == "b-0"
    assert rows[4]["prompt"][0]["content"] == "<image><image>figure b . and   ? think !"
    assert rows[4]["response"] == "so 0 \\boxed{1/2}" and rows[4]["baseline"]["score"] is None
    # The question itself was asked without a description.
    assert {content(one) for one in engine.of("samples")} == {
        "<image>what is the sum ? think !",
        "<image>and <image> ? think !",
        "<image>how long ? think !",
    }


def contents(folder: Path) -> dict[str, bytes]:
    left_out = ("lock", "config.yaml")
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in left_out)
    made = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    # Parameters name the folder itself; what was being written is written anew.
    return {name: text for name, text in made.items() if not name.endswith((".parameters.json", ".tmp"))}


SETS_OF_ALL = [(method, number) for method in METHODS for number in range(len(METHODS[method]))]


@pytest.mark.parametrize(("method", "number"), [one for one in SETS_OF_ALL if one[0] in LABEL_FREE])
def test_no_label_free_method_opens_the_truth_or_needs_it(
    make, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, number: int
) -> None:
    assert sidecar_of(data).is_file()
    with monkeypatch.context() as patch:
        opened = watch_truth(patch)
        make(method, number=number, folder="watched")
        assert str(data) in opened
    sidecar_of(data).unlink()
    make(method, number=number, folder="absent")
    assert contents(tmp_path / "watched" / "stages") == contents(tmp_path / "absent" / "stages")


def test_whoever_reads_the_truth_would_be_seen(make, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        watch_truth(patch)
        with pytest.raises(AssertionError, match=r"train\.truth\.parquet was opened"):
            make("rejection_sft")
        with pytest.raises(AssertionError, match=r"train\.truth\.parquet was opened"):
            read_truth([data])


@pytest.mark.parametrize(("method", "number"), SETS_OF_ALL)
def test_after_a_kill_only_what_is_missing_is_asked(make, tmp_path: Path, method: str, number: int) -> None:
    whole = make(method, number=number, folder="whole")[1].asked
    for fails_after in {0, len(whole) // 2, len(whole) - 1}:
        folder = f"killed_{fails_after}"
        with pytest.raises(KeyboardInterrupt):
            make(method, number=number, folder=folder, engine=Engine(fails_after))
        assert len(make(method, number=number, folder=folder)[1].asked) == len(whole) - fails_after
        assert contents(tmp_path / folder / "stages") == contents(tmp_path / "whole" / "stages")
    assert make(method, number=number, folder="whole")[1].asked == []


def test_stages_that_were_made_with_other_settings_are_kept_and_named(make, tmp_path: Path) -> None:
    make("lmsi")
    before = contents(tmp_path / "run" / "stages")
    with pytest.raises(RecipeError, match=r"samples\.jsonl was made with other settings \(temperature\).*run_folder"):
        make("lmsi", "actor_rollout_ref.rollout.temperature=0.5")
    assert contents(tmp_path / "run" / "stages") == before


def test_the_summary_counts_rows_what_is_kept_and_every_token(make, tmp_path: Path) -> None:
    make("genixer")
    summary = json.loads((tmp_path / "run" / "stages" / "summary.json").read_text())
    assert summary == {
        "rows": 3,
        "sets": {"responses.parquet": 5},
        # Five each: three questions, four responses to each, four replies about each of their six answers.
        "generated_tokens": {"questions/responses/questions": 15, "samples": 60, "verdicts": 120, "all": 195},
    }
    make("stic", folder="two")
    make("stic", folder="two", number=1)
    summary = json.loads((tmp_path / "two" / "stages" / "summary.json").read_text())
    assert summary["sets"] == {"pairs.parquet": 2, "responses.parquet": 12}
    assert summary["generated_tokens"]["all"] == 5 * (3 + 3 + 3 + 12)


def test_rows_are_drawn_by_a_seed_and_none_that_is_left_out(data: Path, tmp_path: Path) -> None:
    listing = tmp_path / "dropped.json"
    listing.write_text(json.dumps({str(data): [{"id": "b"}]}))

    def drawn(count: int | None, seed: int = 0) -> list[str]:
        draw_rows(tmp_path / "rows.parquet", [str(data)], str(listing), count, seed)
        return list(pq.read_table(tmp_path / "rows.parquet")["id"].to_pylist())

    assert drawn(None) == ["a", "c"]
    assert {tuple(drawn(1, seed)) for seed in range(10)} == {("a",), ("c",)}
    assert drawn(1, 3) == drawn(1, 3)
    with pytest.raises(ValueError, match=r"mmupt\.baseline\.rows=3: only 2 rows of .*train\.parquet can be used"):
        drawn(3)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Stand-ins for the trainers, which leave their model and note who trained what, and for the process of stages."""
    done: list[tuple[str, str]] = []

    def trains(trainer: str, config: DictConfig, model: str, folder: Path) -> Path:
        assert (folder / run.FILES[trainer][0]).is_file()
        policy = folder / trainer / "model"
        policy.mkdir(parents=True, exist_ok=True)
        for file in MODEL.iterdir():
            (policy / file.name).write_bytes(file.read_bytes())
        (policy / "trained_by").write_text(trainer)
        done.append((trainer, model))
        return policy

    def stages_in_this_process(run_folder: Path, number: int, model: str) -> None:
        run.make_set(OmegaConf.load(run_folder / "config.yaml"), number, model)

    monkeypatch.setattr(run, "train", trains)
    monkeypatch.setattr(run, "_in_a_process_of_its_own", stages_in_this_process)
    monkeypatch.setattr(stages, "answers", Engine().answers)
    return done


def saved(config: DictConfig) -> DictConfig:
    folder = Path(config.mmupt.run_folder)
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, folder / "config.yaml")
    return config


@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_by_its_trainers_in_turn_and_leaves_the_last_policy(
    data: Path, tmp_path: Path, trained, method: str
) -> None:
    config = saved(recipe(method, data, tmp_path / "run"))
    left = run.run_baseline(config)
    assert left == tmp_path / "run" / "model" and (left / "trained_by").read_text() == METHODS[method][-1]
    assert [trainer for trainer, _ in trained] == list(METHODS[method])
    # Each goes on from what the one before it has left.
    models = [str(MODEL), *(str(tmp_path / "run" / "stages" / name / "model") for name in METHODS[method])]
    assert [model for _, model in trained] == models[:-1]
    assert run.run_baseline(config) == left and len(trained) == len(METHODS[method])


def test_the_second_policy_of_stic_is_asked_in_its_second_stage(data: Path, tmp_path: Path, trained) -> None:
    run.run_baseline(saved(recipe("stic", data, tmp_path / "run")))
    (row, *_) = pq.read_table(tmp_path / "run" / "stages" / "responses.parquet").to_pylist()
    assert row["baseline"]["model"] == str(tmp_path / "run" / "stages" / "dpo" / "model")


def test_a_policy_that_was_being_left_when_the_run_was_killed_is_left_again(
    data: Path, tmp_path: Path, trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = saved(recipe("lmsi", data, tmp_path / "run"))

    def killed(source: str, target: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, "link_or_copy", killed)
        with pytest.raises(KeyboardInterrupt):
            run.run_baseline(config)
    assert not (tmp_path / "run" / "model").exists()
    left = run.run_baseline(config)
    assert {file.name for file in MODEL.iterdir()} < {file.name for file in left.iterdir()}


def test_a_folder_with_stages_is_not_continued_with_settings_of_another_run(elsewhere: Path, monkeypatch) -> None:
    def start(name: str, *overrides: str) -> None:
        config = train.prepare(name, ["mmupt.run_folder=here", *overrides])
        train._check_continued(config, Path(config.mmupt.run_folder) / "config.yaml")
        saved(config)

    start("mmupt_tiny_lmsi")
    start("mmupt_tiny_lmsi", "mmupt.baseline.rows=5")
    said = elsewhere / "here" / "stages" / "samples.partial.jsonl"
    said.parent.mkdir()
    said.write_text("{}\n")
    start("mmupt_tiny_lmsi", "mmupt.baseline.rows=5", "trainer.logger=[console]")
    for name, overrides, key in (
        ("mmupt_tiny_lmsi", ["mmupt.baseline.rows=6"], "mmupt.baseline.rows"),
        ("mmupt_tiny_srlm", ["mmupt.baseline.rows=5"], "mmupt.baseline.method"),
        ("mmupt_tiny", [], "mmupt.baseline.method"),
    ):
        with pytest.raises(RecipeError, match=rf"holds a run with other settings \(.*{key}.*mmupt\.run_folder="):
            start(name, *overrides)


def test_a_recipe_with_a_method_runs_it_in_place_of_grpo(elsewhere: Path, monkeypatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(train, "run_baseline", lambda config: ran.append(config.mmupt.baseline.method) or Path("left"))
    monkeypatch.setattr(train, "train_until_done", lambda config: pytest.fail("GRPO"))
    monkeypatch.setattr(train, "evaluate", lambda config, model, name, *rest: ran.append(f"{name}: {model}"))
    monkeypatch.setattr(train, "write_report", lambda folder, note: "the report")
    train.run("mmupt_tiny_lmsi", [])
    assert ran == ["lmsi", "before: recipes/mmupt/tiny/model", "after: left"]


@pytest.mark.parametrize(
    ("name", "override", "said"),
    [
        (
            "mmupt_tiny",
            "mmupt.baseline.method=mmi",
            r"mmupt\.baseline\.method must be null or one of rejection_sft, lmsi",
        ),
        (
            "mmupt_tiny",
            "mmupt.baseline.method=rejection_sft",
            r"data\.supervised=False does not go with .*rejection_sft",
        ),
        ("mmupt_tiny_supervised", "mmupt.baseline.method=lmsi", r"data\.supervised=True does not go with .*=lmsi"),
        ("mmupt_tiny_lmsi", "data.generated_share=0.5", r"data\.generated_share is of GRPO alone"),
        ("mmupt_tiny_lmsi", "mmupt.baseline.rows=0", r"mmupt\.baseline\.rows must be null or a whole number from 1 on"),
        ("mmupt_tiny_srlm", "mmupt.baseline.judge_scale=stars", r"judge_scale must be one of points, yes_no"),
        (
            "mmupt_tiny_srlm",
            "mmupt.baseline.prompts.judge=nowhere",
            r"there is no prompt .*baselines/prompts/nowhere\.txt",
        ),
        (
            "mmupt_tiny_srlm",
            "mmupt.baseline.prompts.judge=describe",
            r"prompts\.judge: .* must have \{response\} or \{answer\}",
        ),
        (
            "mmupt_tiny_stic",
            "mmupt.baseline.prompts.describe=judge",
            r"prompts\.describe: .* may have nothing in braces",
        ),
        (
            "mmupt_tiny_stic",
            "mmupt.baseline.bad_prompt_share=2",
            r"bad_prompt_share must be a number from 0 to 1, not 2",
        ),
    ],
)
def test_a_method_that_cannot_be_run_is_refused_with_its_recipe(name: str, override: str, said: str) -> None:
    with pytest.raises(RecipeError, match=rf"recipe {name}: .*{said}"):
        load_recipe(name, [override])


def test_every_method_has_a_set_for_each_of_its_trainers_and_a_recipe_for_each_data_set() -> None:
    assert {method: len(sets) for method, sets in SETS.items()} == {name: len(of) for name, of in METHODS.items()}
    names = {f"mmupt_{data}_{method}" for data in ("tiny", "geometry3k", "geoqa", "mmr1") for method in METHODS}
    assert names <= recipes().keys()
    assert all(read_baseline(load_recipe(name)[0]).method == name.split("_", 2)[2] for name in sorted(names)[:5])


def test_the_tiny_model_is_asked_in_the_words_of_its_warm_start() -> None:
    assert read_prompt("tiny_judge", PROMPTS) == JUDGE
    assert read_prompt("tiny_describe", PROMPTS) == DESCRIBE


def test_every_prompt_that_is_shipped_is_used_by_a_recipe() -> None:
    used = {"tiny_judge", "tiny_describe", "tiny_described"}
    used |= set(OmegaConf.load(CONFIG_FOLDER / "base.yaml").mmupt.baseline.prompts.values())
    assert {file.stem for file in PROMPTS.glob("*.txt")} == used
