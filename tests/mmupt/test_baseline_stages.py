"""The stages of each method: what is asked, what is written of it, that no truth is opened, that kills cost little."""

import hashlib
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from baseline_engine import MODEL, PICTURES, Engine, recipe, write_rows
from PIL import Image
from stand_in_engine import OutOfMemory, content
from watched import watch_truth

from mmupt.baseline_settings import BASELINES
from mmupt.baselines import stage_runner
from mmupt.baselines.training_sets import PAIRS, RESPONSES
from mmupt.compose import RecipeError
from mmupt.evaluation import response_cache
from mmupt.evaluation.generation import QuestionRequest
from mmupt.evaluation.generation_settings import INPUT_FIELDS
from mmupt.evaluation.response_files import read_whole
from mmupt.tiny.demonstrations import DESCRIBE
from verl_ext.datasets.ground_truth import read_truth, sidecar_of

LABEL_FREE = [method for method in BASELINES if method != "rejection_sft"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path)


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
        monkeypatch.setattr(response_cache, "answer_questions", engine.answers)
        config = recipe(method, data, tmp_path / folder, *overrides)
        config.mmupt.seed = seed
        file = stage_runner.make_set(config, number, str(MODEL))
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
        def says(self, one: QuestionRequest, number: int) -> str:
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
    with pytest.raises(RecipeError, match=r"responses\.parquet: none of 3 rows was kept"):
        make("genixer", "mmupt.baseline.min_yes=0.75", folder="unsure")


def test_genixer_sees_images_and_prompts_as_training_does_at_every_stage(make) -> None:
    # Visual tokens of 32 x 32 px, and a chat template that is told not to think.
    seen = {"min_pixels": 262144, "max_pixels": 1572864, "chat_template_kwargs": {"enable_thinking": False}}
    _, engine = make("genixer", "model=qwen3_5_4b")
    assert {one.name for one in engine.asked} == {"questions", "samples", "verdicts"}
    assert all({name: getattr(one, name) for name in INPUT_FIELDS} == seen for one in engine.settings)
    # Unless the recipe asks otherwise for the questions.
    _, engine = make(
        "genixer", "model=qwen3_5_4b", "mmupt.baseline.synthesis=['preset=tiny','max_pixels=4096']", folder="b"
    )
    assert {one.max_pixels for one in engine.settings} == {4096, 1572864}


class Sure(Engine):
    def says(self, one: QuestionRequest, number: int) -> str:
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


SETS_OF_ALL = [(method, number) for method in BASELINES for number in range(len(BASELINES[method].stages))]


@pytest.mark.parametrize(("method", "number"), SETS_OF_ALL)
def test_all_that_was_said_in_a_stage_is_a_set_with_what_was_asked(
    make, tmp_path: Path, method: str, number: int
) -> None:
    _, engine = make(method, number=number)
    for name in {one.name for one in engine.asked} - {"questions"}:
        kept = pq.read_table(tmp_path / "run" / "stages" / f"{name}.parquet")
        assert kept.schema == RESPONSES
        rows = kept.to_pylist()
        said = read_whole(tmp_path / "run" / "stages" / f"{name}.jsonl")
        expected = [(f"{one.id}-{one.sample}", one.response) for one in said]
        assert [(row["id"], row["response"]) for row in rows] == expected
        asked = {one.row["id"]: one.row for one in engine.of(name)}
        for row, one in zip(rows, said, strict=True):
            assert (row["prompt"], row["images"]) == (asked[one.id]["prompt"], asked[one.id]["images"])
            text = row["prompt"][0]["content"].replace("<image>", "")
            assert row["baseline"] == {
                "method": method,
                "stage": name,
                "model": str(MODEL),
                "sample": one.sample,
                "prompt_sha256": hashlib.sha256(text.encode()).hexdigest(),
                "score": None,
            }


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
        with pytest.raises(OutOfMemory):
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
