"""Evaluation: it asks what veRL asks, each question once however often it is killed, and its file is there whole."""

import asyncio
import io
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from judge_server import MODEL as JUDGE
from judge_server import Said, serve
from PIL import Image
from stand_in_engine import OutOfMemory, StandInEngine
from transformers import AutoProcessor

from mmupt.benchmarks import BENCHMARKS, Question, read_questions
from mmupt.compose import as_override
from mmupt.datasets import data_set
from mmupt.evaluation import evaluate as module
from mmupt.evaluation import generation, response_cache
from mmupt.evaluation.evaluate import EvaluationError, load_evaluation_config
from mmupt.evaluation.generation import QuestionRequest
from mmupt.evaluation.generation_settings import GenerationSettings
from mmupt.evaluation.messages import engine_prompt, rendered
from mmupt.evaluation.response_files import (
    Mode,
    Response,
    parameters_path,
    read_parameters,
    read_whole,
    write_responses,
)
from mmupt.evaluation.verdicts import verdicts_of
from mmupt.runtime.run_lock import exclusive_run
from mmupt_data.figure_task import write_figures as figures
from mmupt_data.row_schema import Row, prompts_path
from mmupt_data.writer import write_dataset

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "recipes" / "mmupt" / "tiny" / "model"
PROCESSOR = AutoProcessor.from_pretrained(MODEL)
RESPONSES = [Response("q1", "greedy", 0, 'so "\\boxed{1}"\n', 5), Response("q1", "sample", 0, "né \u2028", 3)]


def picture(width: int, height: int, color: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), color).save(file, format="PNG")
    return file.getvalue()


PICTURES = (picture(84, 84, "red"), picture(84, 90, "blue"))
ROWS = [
    Row("one", "made-up", "<image>what is the area of the triangle ?", (picture(84, 84, "red"),), "a", "1"),
    # Neither side is a multiple of what the vision tower takes, so that both must be scaled alike.
    Row("two", "made-up", "<image>or\n<image>?", (picture(90, 131, "red"), picture(300, 60, "blue")), "a", "2"),
    Row("none", "made-up", "what is the sum ?", (), "a", "3"),
]
# What a row may bring besides.
HARD_ROWS = [
    # Text that veRL and the tokenizer would take for something else, with and without an image.
    Row("tags", "made-up", "<image>is a <video> or an <image> an <|im_end|> ?", PICTURES[:1], "a", "4"),
    Row("tag", "made-up", "is a <video> an <|image_pad|> or an <image> ?", (), "a", "5"),
    # An image that only margins make acceptable to both scalings.
    Row("narrow", "made-up", "<image>how long ?", (picture(2000, 3, "red"),), "a", "6"),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_dataset(tmp_path, {"test": ROWS}, {})
    return prompts_path(tmp_path, "test")


@pytest.mark.parametrize(
    "changes",
    [{}, {"min_pixels": 16_000}, {"max_pixels": 8_000}, {"instruction": "put the answer in a \\boxed{ }"}],
    ids=["as is", "min", "max", "instruction"],
)
def test_the_prompt_equals_the_one_that_verl_builds_in_training(tmp_path: Path, changes: dict[str, Any]) -> None:
    from omegaconf import OmegaConf
    from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder
    from verl.workers.rollout.utils import qwen2_5_vl_dedup_image_tokens

    from verl_ext.datasets.unlabelled_dataset import UnlabelledDataset

    write_dataset(tmp_path, {"test": [*ROWS, *HARD_ROWS]}, {}, evaluation=["test"])
    data, processor = prompts_path(tmp_path, "test"), PROCESSOR
    keys = {"instruction": None, "min_pixels": None, "max_pixels": None, "dropped_rows": None}
    keys |= {"generated_share": None, **changes}
    config = OmegaConf.create(
        {
            "train_files": str(data),
            "val_files": None,
            "filter_overlong_prompts": False,
            "cache_dir": str(data.parent),
            **keys,
        }
    )
    dataset = UnlabelledDataset(str(data), config, tokenizer=processor.tokenizer, processor=processor)
    builder = create_continuous_token_builder(processor.tokenizer, hf_model_type="qwen2_5_vl", processor=processor)
    for row, trained_on in zip(pq.read_table(data).to_pylist(), dataset, strict=True):
        messages = trained_on["raw_prompt"]
        images, _, _ = asyncio.run(UnlabelledDataset.process_multi_modal_info(messages, 14, config))
        expanded = builder.build_initial_tokens(messages, images=images)
        limits = {name: value for name, value in changes.items() if name != "instruction"}
        prompt = engine_prompt(row, processor, limits, changes.get("instruction"))
        assert prompt["prompt_token_ids"] == qwen2_5_vl_dedup_image_tokens(expanded, processor)
        ours = prompt.get("multi_modal_data", {}).get("image")
        assert [(i.size, i.tobytes()) for i in ours or []] == [(i.size, i.tobytes()) for i in images or []]
        # One token of an image for each image, and one end of a turn for each turn.
        ids = prompt["prompt_token_ids"]
        text = processor.tokenizer.decode(ids)
        assert text.count("<|image_pad|>") == len(row["images"]) and text.count("<|video_pad|>") == 0
        assert text.count("<|im_end|>") == text.count("<|im_start|>") - 1


def test_responses_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "new" / "responses.jsonl"
    write_responses(file, RESPONSES, {"samples": 1})
    assert read_whole(file) == RESPONSES
    assert read_parameters(file) == {"samples": 1}
    assert sorted(path.name for path in file.parent.iterdir()) == ["responses.jsonl", "responses.parameters.json"]


def test_a_row_that_is_no_response_is_named_by_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "responses.jsonl"
    write_responses(file, RESPONSES[:1], {})
    for row in ('{"id": "q2"}', "{"):
        file.write_text(file.read_text().splitlines()[0] + f"\n{row}\n")
        with pytest.raises(ValueError, match=r"responses\.jsonl, line 2, is not a response"):
            read_whole(file)


@pytest.mark.parametrize("fails_at", [1, 2])
def test_an_interrupted_write_leaves_no_file_that_counts_as_whole(tmp_path: Path, monkeypatch, fails_at: int) -> None:
    file = tmp_path / "responses.jsonl"
    write_responses(file, RESPONSES[:1], {"seed": 0})
    replace, calls = os.replace, []

    def interrupted(*paths: Path) -> None:
        calls.append(paths)
        if len(calls) == fails_at:
            raise KeyboardInterrupt
        replace(*paths)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_responses(file, RESPONSES, {"seed": 1})
    assert read_parameters(file) is None
    assert read_whole(file) in (RESPONSES[:1], RESPONSES)


class Engine(StandInEngine):
    """Names the question, and how it was asked."""

    def says(self, one: QuestionRequest, number: int) -> str:
        return f"{one.row['id']} {one.mode} {number}"


def run(data: Path, output: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str, fails_after: int = 10**9) -> Engine:
    engine = Engine(fails_after)
    monkeypatch.setattr(response_cache, "answer_questions", engine.answers)
    fixed = [f"model={MODEL}", f"files={{test:{data}}}", f"output={output}", "score=false", "preset=tiny", "samples=2"]
    module.evaluate(load_evaluation_config([*fixed, *overrides]))
    return engine


def test_the_file_is_in_the_order_of_questions_with_greedy_responses_first(
    data: Path, tmp_path: Path, monkeypatch
) -> None:
    run(data, tmp_path / "out", monkeypatch)
    found = [(one.id, one.mode, one.sample) for one in read_whole(tmp_path / "out" / "test.jsonl")]
    assert found == [(row.id, "greedy", 0) for row in ROWS] + [(row.id, "sample", i) for row in ROWS for i in range(2)]


def test_responses_that_are_not_judged_yet_are_told_at_the_end(tmp_path: Path, monkeypatch) -> None:
    metadata = {"question_for_eval": "how many ?", "problem_version": "Text Lite", "metadata": {}}
    row = Row("q", "mathverse", "<image>how many ?", PICTURES[:1], "multi-choice", "A", metadata=metadata)
    write_dataset(tmp_path, {"test": [row, replace(row, id="r", question="<image>how much ?")]}, {})
    with serve(lambda *_: Said(status=400)) as server:
        keys = ["score=true", f"judge.url={server.url}", f"judge.model={JUDGE}"]
        with pytest.raises(EvaluationError, match="6 responses are not judged yet: the same command"):
            run(prompts_path(tmp_path, "test"), tmp_path / "out", monkeypatch, *keys)


@pytest.mark.parametrize("fails_after", range(6))
def test_what_was_finished_before_a_failure_is_not_asked_again(
    data: Path, tmp_path: Path, monkeypatch, fails_after: int
) -> None:
    output = tmp_path / "out"
    with pytest.raises(OutOfMemory):
        run(data, output, monkeypatch, fails_after=fails_after)
    assert not (output / "test.jsonl").exists()
    engine = run(data, output, monkeypatch)
    assert len(engine.asked) == 6 - fails_after
    whole = read_whole(output / "test.jsonl")
    run(data, tmp_path / "undisturbed", monkeypatch)
    assert whole == read_whole(tmp_path / "undisturbed" / "test.jsonl")
    assert run(data, output, monkeypatch).asked == []
    assert sorted(path.name for path in output.iterdir()) == [
        "config.yaml",
        "lock",
        "test.jsonl",
        "test.parameters.json",
    ]


def test_a_line_that_was_cut_by_a_kill_is_asked_again(data: Path, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(OutOfMemory):
        run(data, tmp_path / "out", monkeypatch, fails_after=4)
    growing = tmp_path / "out" / "test.partial.jsonl"
    growing.write_bytes(growing.read_bytes()[:-7])
    assert len(run(data, tmp_path / "out", monkeypatch).asked) == 3
    assert len(read_whole(tmp_path / "out" / "test.jsonl")) == 9


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "half made"])
def test_responses_made_with_other_settings_are_kept_unless_they_are_to_be_replaced(
    data: Path, tmp_path: Path, monkeypatch, whole: bool
) -> None:
    output = tmp_path / "out"
    if whole:
        run(data, output, monkeypatch)
    else:
        with pytest.raises(OutOfMemory):
            run(data, output, monkeypatch, fails_after=4)
    before = {path.name: path.read_bytes() for path in output.glob("test*")}
    with pytest.raises(EvaluationError, match=r"other settings \(temperature\).*replace=true"):
        run(data, output, monkeypatch, "temperature=0.5")
    assert {path.name: path.read_bytes() for path in output.glob("test*")} == before
    assert len(run(data, output, monkeypatch, "temperature=0.5", "replace=true").asked) == 6
    assert json.loads(parameters_path(output / "test.jsonl").read_text())["temperature"] == 0.5


def test_other_weights_and_other_data_are_other_settings(data: Path, tmp_path: Path, monkeypatch) -> None:
    output, model = tmp_path / "out", tmp_path / "weights"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    run(data, output, monkeypatch, f"model={model}")
    (model / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(EvaluationError, match=r"other settings \(weights\)"):
        run(data, output, monkeypatch, f"model={model}")
    (model / "model.safetensors").unlink()
    with pytest.raises(EvaluationError, match="weights"):
        run(data, output, monkeypatch, f"model={model}")
    write_dataset(data.parent, {"test": ROWS[:2]}, {"rows": 2})
    with pytest.raises(EvaluationError, match=r"other settings \(data, weights\)"):
        run(data, output, monkeypatch, f"model={model}")


def test_on_how_much_a_model_runs_is_of_no_consequence(data: Path, tmp_path: Path, monkeypatch) -> None:
    run(data, tmp_path / "out", monkeypatch)
    assert run(data, tmp_path / "out", monkeypatch, "replicas=2", "engine={max_num_seqs:8}").asked == []


def test_a_limit_asks_the_first_questions_alone(data: Path, tmp_path: Path, monkeypatch) -> None:
    assert {one.row["id"] for one in run(data, tmp_path / "out", monkeypatch, "limit=2").asked} == {"one", "two"}


def test_a_second_evaluation_into_the_same_folder_waits_for_nobody(data: Path, tmp_path: Path, monkeypatch) -> None:
    output = tmp_path / "out"
    with exclusive_run(output, output / "x"), pytest.raises(BlockingIOError, match="in use by the run of process"):
        run(data, output, monkeypatch)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["benchmarks=[mathvisa]"],
            "'mathvisa' is none of figures, figures_hard, mathverse, mathvision, mathvista, wemath",
        ),
        (["benchmarks=[geoqa]"], "name a split, NAME/SPLIT"),
        ([], "nothing to answer"),
        (["files={a:missing.parquet}"], r"a: missing\.parquet is missing"),
        (["samples=0"], "no responses are asked for"),
        (["samples=-1", "greedy=true"], "samples must be a whole number from 0 on, not -1"),
        (["samples=many"], "samples must be a whole number from 0 on, not 'many'"),
        (["temperature=warm"], "temperature must be a number from 0 on, not 'warm'"),
        (["prompt=polite"], "prompt must be one of own, official"),
        (["preset=official"], "test: made-up has no official prompt"),
        (["device=tpu"], "device must be one of cpu, cuda"),
        (["temprature=1"], "temprature"),
        (["preset=warm"], "preset/warm"),
        (["temperature 1"], "temperature 1"),
        (["judge.model=m"], "judge.url and judge.model belong together"),
    ],
)
def test_what_cannot_be_evaluated_is_said_before_anything_starts(
    data: Path, tmp_path: Path, overrides: list[str], said: str
) -> None:
    fixed = [f"model={MODEL}", f"output={tmp_path / 'out'}"]
    if overrides and not overrides[0].startswith(("benchmarks", "files")):
        fixed.append(f"files={{test:{data}}}")
    with pytest.raises(EvaluationError, match=said):
        module.evaluate(load_evaluation_config([*fixed, *overrides]))


def test_the_official_preset_asks_in_the_words_of_the_authors(tmp_path: Path, monkeypatch) -> None:
    metadata = {"query": "Hint: Give a whole number.\nQuestion: how many ?", "answer_type": "integer", "metadata": {}}
    rows = [
        Row(
            f"q{i}",
            "mathvista",
            f"<image>how many {i} ?",
            (picture(84, 84 + i, "red"),),
            "free_form",
            "7",
            metadata=metadata,
        )
        for i in range(2)
    ]
    write_dataset(tmp_path, {"test": rows}, {})
    one = module.QuestionSet("test", (prompts_path(tmp_path, "test"),), tmp_path / "test.jsonl")
    assert [row["prompt"][0]["content"] for row in module.read_question_rows(one, "official", None)] == [
        "<image>Hint: Give a whole number.\nQuestion: how many ?"
    ] * 2
    assert module.read_question_rows(one, "own", 1)[0]["prompt"][0]["content"] == "<image>how many 0 ?"


def test_a_missing_truth_is_named_before_anything_is_generated(data: Path, tmp_path: Path) -> None:
    data.with_suffix(".truth.parquet").unlink()
    with pytest.raises(EvaluationError, match=r"test\.parquet has no truth: .*test\.truth\.parquet .*score=false"):
        module.evaluate(
            load_evaluation_config([f"model={MODEL}", f"files={{test:{data}}}", f"output={tmp_path / 'out'}"])
        )


def test_somebody_elses_file_is_answered_and_a_row_that_cannot_be_read_is_named_before(
    tmp_path: Path, monkeypatch
) -> None:
    file = tmp_path / "mine.parquet"
    (tmp_path / "a.png").write_bytes(PICTURES[0])
    columns = {"prompt": ["<image>what ?", "how ?"], "image": ["a.png", None], "answer": [4, 5]}
    pq.write_table(pa.table(columns), file)
    run(file, tmp_path / "out", monkeypatch, "score=true", "greedy=true", "samples=0")
    ids = [f"{tmp_path.name}-mine-00000{row}" for row in range(2)]
    assert [one.id for one in read_whole(tmp_path / "out" / "test.jsonl")] == ids
    assert {id_: one.truth for id_, one in read_questions(file).items()} == dict(zip(ids, "45", strict=True))
    pq.write_table(pa.table({**columns, "image": ["a.png", "http://example.org/b.png"]}), file)
    with pytest.raises(EvaluationError, match=r"mine\.parquet, row 1, .*: image 0 is the address"):
        run(file, tmp_path / "other", monkeypatch, fails_after=0)


def test_the_papers_settings_are_the_default() -> None:
    config = load_evaluation_config(["model=m"])
    assert (config.temperature, config.max_tokens, config.samples, config.greedy) == (0.2, 16384, 1, False)
    assert (config.min_pixels, config.max_pixels, config.system_prompt) == (
        50176,
        1003520,
        "You are a helpful assistant.",
    )
    assert load_evaluation_config(["model=m", "preset=greedy"]).greedy
    assert load_evaluation_config(["model=m", "preset=official"]).prompt == "official"


@settings(max_examples=20)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n$"), min_size=1))
@example("\\")
@example("it's \\boxed{}\\'")
def test_a_launcher_can_hand_any_text_on(text: str) -> None:
    config = load_evaluation_config([as_override("model", text), as_override("forbidden_openings", [text, "b"])])
    assert config.model == text and list(config.forbidden_openings) == [text, "b"]


def test_the_system_prompt_goes_first() -> None:
    row = {"id": "q", "prompt": [{"role": "user", "content": "why ?"}], "images": []}
    assert rendered(row, PROCESSOR, {}, "say", "be kind")[0].startswith("<|im_start|>system\nbe kind<|im_end|>")
    assert rendered(row, PROCESSOR, {}, "say")[0].startswith("<|im_start|>user\n")


def test_each_question_has_a_seed_of_its_own_but_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "engine_prompt", lambda *_: {})

    def seed(device: str, id_: str, mode: Mode, seed: int = 0) -> int | None:
        config = load_evaluation_config(["model=m", f"seed={seed}"])
        replica = generation.Replica.__new__(generation.Replica)
        settings = GenerationSettings.from_config(config, model="m", device=device, dtype="float32", replicas=1)
        replica._processor = None
        return replica._group(settings, QuestionRequest("test", mode, {"id": id_})).sampling.seed

    assert seed("cpu", "a", "sample") is None and seed("cuda", "a", "greedy") is None
    assert seed("cuda", "a", "sample") == seed("cuda", "a", "sample") is not None
    assert len({seed("cuda", "a", "sample"), seed("cuda", "b", "sample"), seed("cuda", "a", "sample", seed=1)}) == 3


def command(*overrides: str) -> list[str]:
    return [sys.executable, "-m", "mmupt", "eval", f"model={MODEL}", "preset=tiny", *overrides]


@pytest.mark.full_stack
@pytest.mark.parametrize("forbidden", [[], ["so"]], ids=["freely", "not opening with so"])
def test_the_tiny_model_answers_every_question_on_a_cpu(data: Path, tmp_path: Path, forbidden: list[str]) -> None:
    keys = [f"files={{test:{data}}}", f"output={tmp_path}", "samples=3", "max_tokens=8", "max_model_len=256"]
    subprocess.run(command(*keys, as_override("forbidden_openings", forbidden)), cwd=ROOT, check=True, timeout=300)
    responses = read_whole(tmp_path / "test.jsonl")
    expected = [(row.id, mode, i) for row in ROWS for mode, n in (("greedy", 1), ("sample", 3)) for i in range(n)]
    assert sorted((r.id, r.mode, r.sample) for r in responses) == sorted(expected)
    assert all(1 <= response.tokens <= 8 for response in responses)
    assert not any(response.response.split()[:1] == [word] for response in responses for word in forbidden)
    assert json.loads((tmp_path / "test.scores.json").read_text())[0]["questions"] == 3


@pytest.mark.full_stack
def test_a_killed_evaluation_goes_on_with_two_replicas_and_asks_nothing_twice(tmp_path: Path) -> None:
    figures(tmp_path / "figures", train=3, validation=3, test=256)
    keys = [f"files={{test:{tmp_path}/figures/test.parquet}}", f"output={tmp_path}/out"]
    growing = tmp_path / "out" / "test.partial.jsonl"
    process = subprocess.Popen(command(*keys), cwd=ROOT)
    deadline = time.monotonic() + 300
    while not growing.is_file() or growing.read_text().count("\n") < 20:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    made = growing.read_text().split("\n")[1:-1]
    assert 19 <= len(made) < 512
    subprocess.run(command(*keys, "replicas=2"), cwd=ROOT, check=True, timeout=400)
    responses = read_whole(tmp_path / "out" / "test.jsonl")
    assert len({(one.id, one.mode, one.sample) for one in responses}) == len(responses) == 256 * 9
    assert {Response(**one) for line in made for one in json.loads(line)} <= set(responses)


@pytest.mark.full_stack
def test_every_benchmark_goes_from_its_hub_columns_to_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "mmupt_data"))
    from hub_shaped import write

    files = {}
    for name in ("mathvista", "mathvision", "mathverse", "wemath"):
        data_set(name).prepare(tmp_path / name, str(write(tmp_path / "source" / name, name, rows=8)))
        files[name] = str(tmp_path / name / f"{BENCHMARKS[name].split}.parquet")
    keys = [as_override("files", files), f"output={tmp_path / 'out'}", "samples=2", "max_model_len=1024"]
    done = subprocess.run(command(*keys), cwd=ROOT, check=True, timeout=400, capture_output=True, text=True)
    for name in files:
        (scores,) = json.loads((tmp_path / "out" / f"{name}.scores.json").read_text())
        assert scores["benchmark"] == name and scores["rule"] == BENCHMARKS[name].rules[0].name
        assert scores["accuracy"][scores["rule"]]["greedy"]["questions"] == 8
        assert f"## {name}" in done.stdout
    assert "paper: MM-UPT" in (tmp_path / "out" / "results.md").read_text()


def test_a_question_whose_image_nobody_can_decode_is_wrong_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*ROWS, Row("lost", "made-up", "<image>what ?", (PICTURES[0][:-40],), "a", "lost greedy 0")]
    write_dataset(tmp_path, {"test": rows}, {}, evaluation=["test"])
    # The other three are answered rightly, as the engine says back what it is asked.
    monkeypatch.setattr(Engine, "says", lambda self, one, number: f"\\boxed{{{one.row['id'] == 'one' or 9}}}")
    engine = run(prompts_path(tmp_path, "test"), tmp_path / "out", monkeypatch, "score=true")
    assert "lost" not in {one.row["id"] for one in engine.asked}
    responses = [one for one in read_whole(tmp_path / "out" / "test.jsonl") if one.id == "lost"]
    assert [(one.mode, one.sample, one.response) for one in responses] == [
        ("greedy", 0, ""),
        ("sample", 0, ""),
        ("sample", 1, ""),
    ]
    assert all(one.not_asked and "image 0 cannot be decoded" in one.not_asked for one in responses)
    (scores,) = json.loads((tmp_path / "out" / "test.scores.json").read_text())
    assert scores["not_asked"] == 1 and scores["accuracy"]["own"]["greedy"]["questions"] == 4
    output = capsys.readouterr().out
    assert "test: 4 of 4 questions answered and scored" in output
    assert "not asked, counted as wrong: lost: image 0 cannot be decoded" in output


def test_an_empty_response_to_what_could_not_be_asked_is_wrong_by_every_rule() -> None:
    # MathVista takes the nearest option where there is no answer.
    question = Question("q", "mathvista", "<image>?", "multi_choice", ("", "5"), "", {"answer_type": "text"})
    (verdict,) = verdicts_of([Response("q", "greedy", 0, "", 0, "no image")], {"q": question})
    assert verdict.right["own"] is False and not any(verdict.right.values())


@pytest.mark.parametrize("overrides", [(), ("allow_partial=true",), ("limit=2",)])
def test_a_benchmark_that_lacks_questions_is_not_scored_unless_told(
    overrides: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    monkeypatch.setattr(module, "data_set", lambda _: SimpleNamespace(prepare=lambda *_, **__: False))
    write_dataset(tmp_path / "wemath", {"testmini": ROWS}, {}, evaluation=["testmini"], official_rows={"testmini": 5})
    engine = Engine()
    monkeypatch.setattr(response_cache, "answer_questions", engine.answers)
    settings = [f"model={MODEL}", "benchmarks=[wemath]", f"output={tmp_path / 'out'}", "preset=tiny", "samples=0"]
    if not overrides:
        with pytest.raises(
            EvaluationError, match=r"wemath: .*testmini\.parquet has 3 of 5 questions.*allow_partial=true"
        ):
            module.evaluate(load_evaluation_config(settings))
        assert engine.asked == []
        return
    module.evaluate(load_evaluation_config([*settings, *overrides]))
    asked = "2 of 5 questions answered and scored (limit=2)" if "limit" in overrides[0] else "3 of 5 questions"
    assert f"wemath: {asked}" in capsys.readouterr().out


def test_responses_that_are_missing_stop_it_before_the_table(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(data, tmp_path / "out", monkeypatch)
    responses = tmp_path / "out" / "test.jsonl"
    responses.write_text("".join(f"{line}\n" for line in responses.read_text().splitlines() if '"two"' not in line))
    with pytest.raises(EvaluationError, match="test: 2 of 3 questions are answered and scored: remove"):
        run(data, tmp_path / "out", monkeypatch, "score=true")
    run(data, tmp_path / "out", monkeypatch, "score=true", "allow_partial=true")
