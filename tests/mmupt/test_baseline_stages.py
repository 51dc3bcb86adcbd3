"""Stages of the baselines: prompts, training sets, no ground truth for label-free methods, restarts after kills."""

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
    """Make a training set of a method; return its rows and the engine with its requests."""

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


def by_id(rows: list[dict[str, Any]], column: str = "response") -> dict[str, str]:
    return {row["id"]: row[column] for row in rows}


def test_rejection_sft_trains_on_responses_that_equal_the_label(make) -> None:
    rows, _ = make("rejection_sft")
    assert list(by_id(rows)) == ["a-0", "a-1", "a-3", "b-0", "b-2"]


def test_lmsi_trains_on_majority_responses(make) -> None:
    rows, _ = make("lmsi")
    assert by_id(rows) == {
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


def test_a_row_has_the_prompt_and_images_of_its_request_and_records_its_origin(make, tmp_path: Path) -> None:
    rows, engine = make("lmsi")
    assert pq.read_schema(tmp_path / "run" / "stages" / "responses.parquet").equals(RESPONSES)
    (request,) = [request for request in engine.requests if request.row["id"] == "b"]
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
    assert (request.row["prompt"], request.row["images"]) == (rows[3]["prompt"], rows[3]["images"])


def test_srlm_prefers_the_response_that_it_judges_best(make, tmp_path: Path) -> None:
    rows, engine = make("srlm")
    # All responses to c are judged wrong, so they have the same score.
    assert by_id(rows, "chosen") == {"a-0": "so 0 \\boxed{2}", "b-0": "so 0 \\boxed{1/2}"}
    assert by_id(rows, "rejected") == {"a-0": "so 2 \\boxed{3}", "b-0": "so 1 \\boxed{7}"}
    assert [row["baseline"]["score"] for row in rows] == [0.75, 0.75]
    assert pq.read_schema(tmp_path / "run" / "stages" / "pairs.parquet").equals(PAIRS)
    # Equal answers are judged once, responses without an answer never.
    prompts = [content(request) for request in engine.requests_for("verdicts")]
    assert sorted(prompts) == sorted(
        [
            *("<image>what is the sum ? is 2 right ?", "<image>what is the sum ? is 3 right ?"),
            *("<image><image>and   ? is 0.5 right ?", "<image><image>and   ? is 7 right ?"),
            *("<image>how long ? is 4 right ?", "<image>how long ? is 5 right ?"),
        ]
    )


def test_srlm_can_judge_whole_responses_with_points(make, tmp_path: Path) -> None:
    class Judge(Engine):
        def respond(self, request: QuestionRequest, number: int) -> str:
            if request.name != "verdicts":
                return super().respond(request, number)
            return f"Score: {request.row['id'].rpartition('-')[2]}"

    prompt = tmp_path / "mine.txt"
    prompt.write_text("{question} : {response} !")
    keys = [f"mmupt.baseline.prompts.judge={prompt}", "mmupt.baseline.judge_scale=points"]
    rows, engine = make("srlm", *keys, engine=Judge())
    assert "<image>what is the sum ? : so 2 \\boxed{3} !" in map(content, engine.requests_for("verdicts"))
    assert by_id(rows, "chosen")["b-2"] == "so 2 \\boxed{0.5}"
    assert [row["baseline"]["score"] for row in rows] == [3.0, 2.0, 3.0]


def test_genixer_trains_on_its_own_questions_with_answers_that_it_confirms(make, tmp_path: Path) -> None:
    rows, engine = make("genixer", "data.instruction=null")
    assert by_id(rows) == {
        "a-direct-r0-0-0": "so 0 \\boxed{2}",
        "a-direct-r0-0-1": "so 1 \\boxed{2}",
        "a-direct-r0-0-3": "so 3 \\boxed{2}",
        "b-direct-r0-0-0": "so 0 \\boxed{1/2}",
        "b-direct-r0-0-2": "so 2 \\boxed{0.5}",
    }
    assert rows[0]["prompt"][0]["content"] == "<image>how many red bars are in figure a ?"
    assert {row["baseline"]["score"] for row in rows} == {0.75}
    # The questions of the data set are not used.
    assert not any("what is the sum" in content(request) for request in engine.requests)
    assert make("genixer", "mmupt.baseline.min_yes=0.75", folder="sure", engine=Sure())[0]
    with pytest.raises(RecipeError, match=r"responses\.parquet: none of 3 rows was kept"):
        make("genixer", "mmupt.baseline.min_yes=0.75", folder="unsure")


def test_every_stage_of_genixer_uses_the_image_limits_and_chat_template_of_training(make) -> None:
    # Visual tokens of this model cover 32 x 32 px; its chat template has thinking disabled.
    expected = {"min_pixels": 262144, "max_pixels": 1572864, "chat_template_kwargs": {"enable_thinking": False}}
    _, engine = make("genixer", "model=qwen3_5_4b")
    assert {request.name for request in engine.requests} == {"questions", "samples", "verdicts"}
    for settings in engine.settings:
        assert {name: getattr(settings, name) for name in INPUT_FIELDS} == expected
    # The recipe can set other limits for writing questions.
    _, engine = make(
        "genixer", "model=qwen3_5_4b", "mmupt.baseline.synthesis=['preset=tiny','max_pixels=4096']", folder="b"
    )
    assert {settings.max_pixels for settings in engine.settings} == {4096, 1572864}


class Sure(Engine):
    """Gives the same verdict in every sample."""

    def respond(self, request: QuestionRequest, number: int) -> str:
        return super().respond(request, 0 if request.name == "verdicts" else number)


def test_stic_prefers_descriptions_of_clean_images_to_descriptions_of_corrupted_images(make) -> None:
    rows, engine = make("stic")
    # Both descriptions of c are the same.
    assert by_id(rows, "chosen") == {"a-0": "figure a .", "b-0": "figure b ."}
    assert set(by_id(rows, "rejected").values()) == {"a blur ."}
    assert rows[1]["prompt"] == [{"role": "user", "content": f"<image><image>{DESCRIBE}"}]
    assert [image["bytes"] for image in rows[1]["images"]] == PICTURES[1:3]
    for preferred, dispreferred in zip(
        engine.requests_for("preferred"), engine.requests_for("dispreferred"), strict=True
    ):
        for clean, corrupted in zip(preferred.row["images"], dispreferred.row["images"], strict=True):
            assert clean["bytes"] in PICTURES and corrupted["bytes"] not in PICTURES
            assert Image.open(BytesIO(corrupted["bytes"])).size == Image.open(BytesIO(clean["bytes"])).size


def test_stic_gives_a_share_of_the_clean_images_a_bad_prompt_instead_of_corrupting_them(make, tmp_path: Path) -> None:
    good, bad, plain = (tmp_path / f"{name}.txt" for name in ("good", "bad", "plain"))
    good.write_text("look closely !\nthen describe .\n")
    bad.write_text("make it up !\n\ndream !\n")
    plain.write_text("describe .\nsay what there is .\n")
    names = {"describe_well": good, "describe_badly": bad, "describe": plain}
    keys = [f"mmupt.baseline.prompts.{name}={file}" for name, file in names.items()]
    rows, engine = make("stic", *keys, "mmupt.baseline.bad_prompt_share=1.0")
    preferred, dispreferred = (engine.requests_for(name) for name in ("preferred", "dispreferred"))
    assert {content(request).replace("<image>", "") for request in preferred} == {"look closely !\nthen describe ."}
    assert {content(request).replace("<image>", "") for request in dispreferred} <= {"make it up !", "dream !"}
    assert all(image["bytes"] in PICTURES for request in dispreferred for image in request.row["images"])
    # Training uses the plain prompt, neither the good nor the bad prompt.
    prompts = {row["prompt"][0]["content"].replace("<image>", "") for row in rows}
    assert prompts <= {"describe .", "say what there is ."}
    # With a share of one half, some images get a bad prompt and the others are corrupted.
    has_clean_images = set()
    for seed in range(6):
        _, engine = make("stic", *keys, "mmupt.baseline.bad_prompt_share=0.5", folder=f"half_{seed}", seed=seed)
        (request, *_) = engine.requests_for("dispreferred")
        is_clean = request.row["images"][0]["bytes"] in PICTURES
        assert is_clean == (content(request).replace("<image>", "") in ("make it up !", "dream !"))
        has_clean_images.add(is_clean)
    assert has_clean_images == {True, False}


def test_the_second_stage_of_stic_trains_on_responses_to_prompts_with_its_own_descriptions(make) -> None:
    rows, engine = make("stic", number=1)
    assert len(rows) == 12 and rows[4]["id"] == "b-0"
    assert rows[4]["prompt"][0]["content"] == "<image><image>figure b . and   ? think !"
    assert rows[4]["response"] == "so 0 \\boxed{1/2}" and rows[4]["baseline"]["score"] is None
    # The responses themselves were sampled without descriptions.
    assert {content(request) for request in engine.requests_for("samples")} == {
        "<image>what is the sum ? think !",
        "<image>and <image> ? think !",
        "<image>how long ? think !",
    }


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, except locks, configurations, temporary files, and parameters, which name the folder."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("lock", "config.yaml"))
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if not path.name.endswith((".parameters.json", ".tmp"))
    }


ALL_SETS = [(method, number) for method in BASELINES for number in range(len(BASELINES[method].stages))]


@pytest.mark.parametrize(("method", "number"), ALL_SETS)
def test_all_responses_of_a_stage_are_written_with_their_prompts_and_images(
    make, tmp_path: Path, method: str, number: int
) -> None:
    _, engine = make(method, number=number)
    for name in {request.name for request in engine.requests} - {"questions"}:
        table = pq.read_table(tmp_path / "run" / "stages" / f"{name}.parquet")
        assert table.schema == RESPONSES
        rows = table.to_pylist()
        responses = read_whole(tmp_path / "run" / "stages" / f"{name}.jsonl")
        expected = [(f"{response.id}-{response.sample}", response.response) for response in responses]
        assert [(row["id"], row["response"]) for row in rows] == expected
        requested = {request.row["id"]: request.row for request in engine.requests_for(name)}
        for row, response in zip(rows, responses, strict=True):
            source = requested[response.id]
            assert (row["prompt"], row["images"]) == (source["prompt"], source["images"])
            text = row["prompt"][0]["content"].replace("<image>", "")
            assert row["baseline"] == {
                "method": method,
                "stage": name,
                "model": str(MODEL),
                "sample": response.sample,
                "prompt_sha256": hashlib.sha256(text.encode()).hexdigest(),
                "score": None,
            }


@pytest.mark.parametrize(
    ("method", "number"), [(method, number) for method, number in ALL_SETS if method in LABEL_FREE]
)
def test_label_free_methods_never_read_ground_truth_and_run_without_it(
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


def test_reading_ground_truth_is_detected(make, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        watch_truth(patch)
        with pytest.raises(AssertionError, match=r"train\.truth\.parquet was opened"):
            make("rejection_sft")
        with pytest.raises(AssertionError, match=r"train\.truth\.parquet was opened"):
            read_truth([data])


@pytest.mark.parametrize(("method", "number"), ALL_SETS)
def test_requests_finished_before_a_failure_are_not_repeated(make, tmp_path: Path, method: str, number: int) -> None:
    count = len(make(method, number=number, folder="undisturbed")[1].requests)
    for fails_after in {0, count // 2, count - 1}:
        folder = f"failed_{fails_after}"
        with pytest.raises(OutOfMemory):
            make(method, number=number, folder=folder, engine=Engine(fails_after))
        assert len(make(method, number=number, folder=folder)[1].requests) == count - fails_after
        assert contents(tmp_path / folder / "stages") == contents(tmp_path / "undisturbed" / "stages")
    assert make(method, number=number, folder="undisturbed")[1].requests == []


def test_stages_with_other_settings_are_kept_and_named(make, tmp_path: Path) -> None:
    make("lmsi")
    before = contents(tmp_path / "run" / "stages")
    with pytest.raises(RecipeError, match=r"samples\.jsonl was made with other settings \(temperature\).*run_folder"):
        make("lmsi", "actor_rollout_ref.rollout.temperature=0.5")
    assert contents(tmp_path / "run" / "stages") == before


def test_the_summary_counts_rows_kept_responses_and_generated_tokens(make, tmp_path: Path) -> None:
    make("genixer")
    summary = json.loads((tmp_path / "run" / "stages" / "summary.json").read_text())
    assert summary == {
        "rows": 3,
        "sets": {"responses.parquet": 5},
        # Five tokens per response: 3 questions, 4 samples of each, 4 verdicts on each of 6 different answers.
        "generated_tokens": {"questions/responses/questions": 15, "samples": 60, "verdicts": 120, "all": 195},
    }
    make("stic", folder="two")
    make("stic", folder="two", number=1)
    summary = json.loads((tmp_path / "two" / "stages" / "summary.json").read_text())
    assert summary["sets"] == {"pairs.parquet": 2, "responses.parquet": 12}
    assert summary["generated_tokens"]["all"] == 5 * (3 + 3 + 3 + 12)
