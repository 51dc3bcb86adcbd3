"""Synthesis never reads ground truth, repeats no finished request after a failure, and records each row's origin."""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from full_stack import HANG_SECONDS
from omegaconf import OmegaConf
from stand_in_engine import OutOfMemory, content
from synthesis_engine import MODEL, PICTURES, ROOT, ROWS, Engine, rows_of, synthesize, write_rows
from watched import watch_truth

from mmupt.evaluation import generation
from mmupt.evaluation.generation import QuestionRequest, QuestionResponses
from mmupt.evaluation.generation_settings import GenerationSettings
from mmupt.runtime.run_lock import exclusive_run
from mmupt.synthesis import run_synthesis as module
from mmupt.synthesis.run_synthesis import SynthesisError, load_synthesis_config
from mmupt.synthesis.source_rows import read_parents
from mmupt.synthesis.synthesized_dataset import read_candidates
from mmupt.tiny.answerable import count_answerable, figures_of
from mmupt.tiny.demonstrations import ASK_DIFFERENT
from mmupt_data.figure_task import write_figures
from mmupt_data.row_schema import PROMPT_SCHEMA, prompts_path
from mmupt_data.writer import write_dataset
from verl_ext.datasets.ground_truth import read_truth, sidecar_of


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path)


def test_each_seed_and_round_samples_with_another_seed(data: Path, tmp_path: Path, monkeypatch) -> None:
    seeds_of_runs = [
        synthesize(data, tmp_path / f"{seed}-{number}", monkeypatch, f"seed={seed}", f"round={number}").seeds
        for seed in (1, 2)
        for number in (1, 2)
    ]
    # All stages of a synthesis share an engine, and so a seed.
    assert [len(seeds) for seeds in seeds_of_runs] == [1] * 4 and len(set().union(*seeds_of_runs)) == 4


def test_stages_share_an_engine_until_the_seed_or_the_number_of_images_changes(monkeypatch) -> None:
    started: list[GenerationSettings] = []

    class RecordedReplica(generation.Replica):
        def __init__(self, settings: GenerationSettings, images: int) -> None:
            started.append(settings)
            self._settings, self._images = settings, images

        def answers(
            self, settings: GenerationSettings, requests: Iterator[QuestionRequest]
        ) -> Iterator[QuestionResponses]:
            return iter(())

    monkeypatch.setattr(generation, "Replica", RecordedReplica)
    config = load_synthesis_config([f"model={MODEL}", "data=none", "replicas=1"])
    _, writing, checking = module._settings(config, str(MODEL))
    engine = generation.ReusableEngine()
    for settings in (writing, checking, writing):
        list(generation.answer_questions(settings, [], engine))
    assert len(started) == 1
    list(generation.answer_questions(replace(writing, seed=writing.seed + 1), [], engine))
    # More images in a question than the engine was started for.
    request = QuestionRequest("a", "sample", {"id": "a", "images": [None]})
    list(generation.answer_questions(started[-1], [request], engine))
    assert len(started) == 3


def contents(output: Path) -> dict[str, bytes]:
    files = (path for path in output.rglob("*") if path.is_file() and path.name not in ("lock", "config.yaml"))
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


def test_each_row_has_the_images_and_provenance_of_its_parent_and_records_its_synthesis(
    data: Path, tmp_path: Path, monkeypatch
) -> None:
    engine = synthesize(data, tmp_path / "out", monkeypatch, "round=2")
    rows = rows_of(tmp_path / "out")
    assert pq.read_schema(tmp_path / "out" / "train.parquet").equals(PROMPT_SCHEMA)
    # Row c has no question to serve as an example, and row d has no image.
    assert [row["id"] for row in rows] == [
        "a-in_context-r2-0",
        "b-in_context-r2-0",
        "a-direct-r2-0",
        "b-direct-r2-0",
        "c-direct-r2-0",
    ]
    first, second = rows[:2]
    (request,) = [request for request in engine.requests if request.row["id"] == "a-in_context-r2"]
    prompt = ASK_DIFFERENT.format(question="what is the sum ?")
    assert content(request) == f"<image>{prompt}"
    assert first == {
        "id": "a-in_context-r2-0",
        "data_source": "made-up_in_context",
        "prompt": [{"role": "user", "content": "<image>how many red things are in this in_context bar ?"}],
        "images": [{"bytes": PICTURES[0]}],
        "question_type": "in_context",
        "choices": None,
        "provenance": {"source": "some/repository", "revision": "c0ffee", "split": "train", "row": 7, "files": None},
        "licence": "CC0",
        "synthesis": {
            "parent": "a",
            "strategy": "in_context",
            "model": str(MODEL),
            "round": 2,
            "prompt_sha256": hashlib.sha256(prompt.encode()).hexdigest(),
            "vote_share": 0.625,
        },
    }
    assert second["prompt"][0]["content"].startswith("<image><image>how many")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "candidates.jsonl",
        "config.yaml",
        "lock",
        "manifest.json",
        "report.json",
        "report.md",
        "responses",
        "sheet.html",
        "train.parquet",
    ]


def test_ground_truth_is_never_read_and_may_be_missing(data: Path, tmp_path: Path, monkeypatch) -> None:
    opened = watch_truth(monkeypatch)
    synthesize(data, tmp_path / "with_truth", monkeypatch, "show_voted_answer=true")
    assert str(data) in opened
    # The watch works: a synthesis that reads the ground truth fails.
    assert sidecar_of(data).is_file()
    monkeypatch.setattr(module, "read_parents", lambda files, limit: read_truth(files))
    with pytest.raises(AssertionError, match=r"train\.truth\.parquet was opened"):
        synthesize(data, tmp_path / "peeks", monkeypatch)
    monkeypatch.undo()
    sidecar_of(data).unlink()
    synthesize(data, tmp_path / "without_truth", monkeypatch, "show_voted_answer=true")
    assert contents(tmp_path / "with_truth") == contents(tmp_path / "without_truth")


def test_a_file_with_an_answer_column_is_refused(data: Path, tmp_path: Path, monkeypatch) -> None:
    table = pq.read_table(data)
    labelled = tmp_path / "labelled.parquet"
    pq.write_table(table.append_column("answer", [["1"] * table.num_rows]), labelled)
    with pytest.raises(SynthesisError, match=r"labelled\.parquet.*truth in it \(answer\)"):
        synthesize(labelled, tmp_path / "out", monkeypatch)


def test_files_without_the_newer_columns_are_read(data: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.parquet"
    pq.write_table(pq.read_table(data).drop_columns(["synthesis", "licence", "provenance"]), old)
    parents, without_images = read_parents([old])
    assert [parent.id for parent in parents] == ["a", "b", "c"] and without_images == 1
    assert [parent.question for parent in parents] == ["what is the sum ?", "and   ?", None]


@pytest.mark.parametrize("fails_after", [0, 4, 11, 21])
def test_requests_finished_before_a_failure_are_not_repeated(
    data: Path, tmp_path: Path, monkeypatch, fails_after: int
) -> None:
    keys = ["show_voted_answer=true", "filters.self_check.enabled=true", "ask.samples=2"]
    engine = synthesize(data, tmp_path / "undisturbed", monkeypatch, *keys)
    stages = ("parents", "questions", "self_check", "difficulty")
    assert [len(engine.requests_for(name)) for name in stages] == [2, 5, 10, 5]
    output = tmp_path / "out"
    with pytest.raises(OutOfMemory):
        synthesize(data, output, monkeypatch, *keys, engine=Engine(fails_after))
    assert not (output / "train.parquet").exists()
    assert len(synthesize(data, output, monkeypatch, *keys).requests) == len(engine.requests) - fails_after
    assert contents(output) == contents(tmp_path / "undisturbed")
    assert synthesize(data, output, monkeypatch, *keys).requests == []


def test_a_new_difficulty_band_filters_again_without_requests(data: Path, tmp_path: Path, monkeypatch) -> None:
    synthesize(data, tmp_path / "out", monkeypatch)
    assert len(rows_of(tmp_path / "out")) == 5
    with pytest.raises(SynthesisError, match=r"no question of 5 is left; report\.md"):
        synthesize(data, tmp_path / "out", monkeypatch, "filters.difficulty.high=0.5", engine=Engine(fails_after=0))
    candidates = read_candidates(tmp_path / "out" / "candidates.jsonl")
    assert {candidate.dropped_by for candidate in candidates} == {"difficulty"}
    assert {candidate.vote_share for candidate in candidates} == {0.625}


def test_responses_made_with_other_settings_are_kept_unless_replace_is_set(
    data: Path, tmp_path: Path, monkeypatch
) -> None:
    synthesize(data, tmp_path / "out", monkeypatch)
    before = contents(tmp_path / "out")
    with pytest.raises(SynthesisError, match=r"other settings \(temperature\).*replace=true"):
        synthesize(data, tmp_path / "out", monkeypatch, "respond.temperature=0.5")
    assert contents(tmp_path / "out") == before
    engine = synthesize(data, tmp_path / "out", monkeypatch, "respond.temperature=0.5", "replace=true")
    assert {request.name for request in engine.requests} == {"difficulty"}


def test_a_disabled_filter_makes_no_requests_and_drops_nothing(data: Path, tmp_path: Path, monkeypatch) -> None:
    keys = ["ask.samples=3", "filters.self_check.enabled=true"]
    engine = synthesize(data, tmp_path / "on", monkeypatch, *keys)
    candidates = read_candidates(tmp_path / "on" / "candidates.jsonl")
    assert {candidate.dropped_by for candidate in candidates} == {"copy_of_other", "self_check", None}
    # The expensive filters run only on candidates that the cheap filters kept.
    not_copied = sum(candidate.dropped_by != "copy_of_other" for candidate in candidates)
    assert len(engine.requests_for("self_check")) == not_copied
    assert len(engine.requests_for("difficulty")) == sum(candidate.kept for candidate in candidates)
    off = [f"filters.{name}.enabled=false" for name in ("copy_of_other", "self_check", "difficulty")]
    requests = synthesize(data, tmp_path / "off", monkeypatch, "ask.samples=2", *off).requests
    assert {request.name for request in requests} == {"questions"}
    rows = rows_of(tmp_path / "off")
    assert len(rows) == 10 and all(row["synthesis"]["vote_share"] is None for row in rows)
    assert "dropped by self_check" not in (tmp_path / "off" / "report.md").read_text()


def test_the_page_shows_images_and_escapes_markup_of_questions(data: Path, tmp_path: Path, monkeypatch) -> None:
    class Hostile(Engine):
        def respond(self, request: QuestionRequest, number: int) -> str:
            if request.name == "questions":
                return "what is <script>alert(1)</script> ?"
            return super().respond(request, number)

    synthesize(data, tmp_path / "out", monkeypatch, "shown=2", engine=Hostile())
    page = (tmp_path / "out" / "sheet.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert page.count("<section>") == 2 and "data:image/png;base64," in page and "://" not in page
    synthesize(data, tmp_path / "again", monkeypatch, "shown=2", engine=Hostile())
    assert page == (tmp_path / "again" / "sheet.html").read_text()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=missing.parquet"], r"missing\.parquet is missing; make it by `mmupt data`"),
        (["strategies=[telepathy]"], "telepathy is none of direct, in_context"),
        (["prompts.direct=nowhere"], r"there is no prompt .*nowhere\.txt"),
        (["respond.extraction=official"], r"respond\.extraction must be one of boxed"),
        (["ask.samples=0"], "no responses are asked for"),
        (["device=tpu"], "device must be one of cpu, cuda"),
        (["filters.lenght.enabled=false"], "lenght"),
        (["limit=0"], "limit must be null or a whole number of at least 1, not 0"),
        (["preset=warm"], "there is no preset 'warm'; known: paper, tiny"),
        (["filters.length.min_words=x"], r"filters\.length\.min_words must be a whole number of at least 0, not 'x'"),
        (
            ["filters.copy_of_other.ngram=0"],
            r"filters\.copy_of_other\.ngram must be a whole number of at least 1, not 0",
        ),
        (["filters.difficulty.low=25"], r"filters\.difficulty\.low must be a number from 0 to 1, not 25"),
        (["filters.self_check.enabled=no_way"], r"filters\.self_check\.enabled must be true or false, not 'no_way'"),
        (["name=../mine"], "name must be the name of a file, without /, not '../mine'"),
        (
            ["shown=-1", "round=one"],
            "round must be a whole number of at least 0, not 'one'; shown must be a whole number",
        ),
    ],
)
def test_invalid_settings_are_refused_before_the_first_request(
    data: Path, tmp_path: Path, monkeypatch, overrides: list[str], message: str
) -> None:
    with pytest.raises(SynthesisError, match=message):
        synthesize(data, tmp_path / "out", monkeypatch, *overrides, engine=Engine(fails_after=0))


def test_a_file_without_images_is_refused_before_the_first_request(tmp_path: Path, monkeypatch) -> None:
    write_dataset(tmp_path / "data", {"train": ROWS[3:]}, {})
    with pytest.raises(SynthesisError, match="data: none of the 1 rows that are read has an image"):
        synthesize(
            prompts_path(tmp_path / "data", "train"), tmp_path / "out", monkeypatch, engine=Engine(fails_after=0)
        )


def test_a_users_own_file_is_read_and_its_unreadable_rows_are_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.parquet"
    (tmp_path / "a.png").write_bytes(b"an image")
    pq.write_table(pa.table({"prompt": ["what ?", "how ?"], "image": ["a.png", None], "mine": [1, 2]}), file)
    (parent,), without_images = read_parents([file])
    assert (parent.question, parent.images, without_images) == ("what ?", (b"an image",), 1)
    pq.write_table(pa.table({"prompt": ["what ?"], "image": ["gone.png"]}), file)
    with pytest.raises(ValueError, match=r"mine\.parquet, row 0, .*: image 0 is 'gone\.png', which names no file"):
        read_parents([file])
    file.write_text("what ?")
    with pytest.raises(ValueError, match=r"mine\.parquet is not a parquet file"):
        read_parents([file])


def test_an_undecodable_image_is_named_before_the_first_request(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "mine.parquet"
    pq.write_table(pa.table({"prompt": ["what ?", "how ?"], "image": [PICTURES[0], PICTURES[1][:-40]]}), file)
    with pytest.raises(SynthesisError, match=r"question '.*-mine-000001-.*-r0' of questions: image 0"):
        synthesize(file, tmp_path / "out", monkeypatch, engine=Engine(fails_after=0))


def test_equal_questions_about_an_image_are_written_once_without_filters(
    data: Path, tmp_path: Path, monkeypatch
) -> None:
    class Repetitive(Engine):
        def respond(self, request: QuestionRequest, number: int) -> str:
            return "Question: how many things are here ?"

    filters = [f"filters.{name}.enabled=false" for name in ("copy_of_other", "self_check", "difficulty")]
    synthesize(data, tmp_path / "out", monkeypatch, *filters, engine=Repetitive())
    assert [row["synthesis"]["parent"] for row in rows_of(tmp_path / "out")] == ["a", "b", "c"]


def test_two_rows_with_the_same_id_are_refused(data: Path, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(SynthesisError, match=r"two rows .* have the id 'a'"):
        synthesize(data, tmp_path / "out", monkeypatch, f"data=[{data},{data}]")


def test_a_second_synthesis_into_a_folder_in_use_is_refused(data: Path, tmp_path: Path, monkeypatch) -> None:
    with (
        exclusive_run(tmp_path / "out", tmp_path / "x"),
        pytest.raises(BlockingIOError, match="in use by the run of process"),
    ):
        synthesize(data, tmp_path / "out", monkeypatch)


def test_every_configuration_key_has_a_comment_above_it() -> None:
    for file in (module.CONFIG_FOLDER / "synthesis.yaml", module.CONFIG_FOLDER / "preset" / "paper.yaml"):
        lines = file.read_text().splitlines()
        for above, line in pairwise(lines):
            if re.match(r"\s*\w+:", line) and not line.startswith("defaults"):
                assert above.strip().startswith("#"), f"{file}: {line}"
    assert OmegaConf.is_config(load_synthesis_config(["model=m", "data=d"]))


@pytest.mark.full_stack
def test_the_tiny_model_writes_questions_about_figures_on_a_cpu(tmp_path: Path) -> None:
    write_figures(tmp_path / "figures", train=24, validation=3, test=3)
    data, output = tmp_path / "figures" / "train.parquet", tmp_path / "out"
    sidecar_of(data).unlink()
    keys = ["preset=tiny", "ask.samples=2", f"data={data}", f"output={output}", f"model={MODEL}"]
    subprocess.run([sys.executable, "-m", "mmupt", "synthesize", *keys], cwd=ROOT, check=True, timeout=HANG_SECONDS)
    rows, candidates = rows_of(output), read_candidates(output / "candidates.jsonl")
    assert len(candidates) == 2 * 2 * 24 and len(rows) == sum(candidate.kept for candidate in candidates)
    assert {row["synthesis"]["strategy"] for row in rows} == {"in_context", "direct"}
    assert all(0 < row["synthesis"]["vote_share"] <= 1 for row in rows)
    answerable, count = count_answerable(candidates, figures_of(data, "train", seed=0))["kept"]
    assert count == len(rows) and answerable > count / 2
    facts = json.loads((output / "report.json").read_text())
    assert facts["rows"] == 24 and facts["strategies"]["all"]["kept"] == len(rows)
