"""Exports of runs and syntheses for the hub: complete folders, honest cards, and no upload without a token."""

import base64
import doctest
import json
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard, ModelCard, metadata_load
from omegaconf import DictConfig, OmegaConf
from view_runs import HOSTILE, question_rows

from mmupt.cli import main
from mmupt.compose import load_recipe
from mmupt.publishing import ExportError, hub_folder
from mmupt.publishing.dataset_card import fenced
from mmupt.publishing.folder_export import export
from mmupt.publishing.row_sources import row_sources
from mmupt.runtime import start_record
from mmupt.runtime.start_record import read_starts, record_start
from mmupt.synthesis.candidates import Candidate, JudgedCandidate
from mmupt.synthesis.run_synthesis import load_synthesis_config
from mmupt.synthesis.source_rows import read_parents
from mmupt.synthesis.synthesis_report import write_report
from mmupt.synthesis.synthesized_dataset import write_candidates, write_questions
from mmupt_data.row_schema import Provenance, Row, prompts_path
from mmupt_data.writer import write_dataset
from verl_ext.files import write_json

TINY = Path("recipes/mmupt/tiny/model")
# Provenance and licence of rows of a data set on the hub.
GEOMETRY = {"provenance": Provenance("hiyouga/geometry3k", "f" * 40, "train", 0), "licence": "MIT"}


@pytest.fixture(autouse=True)
def no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))


@pytest.fixture
def requests() -> Iterator[list[httpx.Request]]:
    """All requests to a simulated hub, which has no repositories and accepts every file."""
    received: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        received.append(request)
        path = request.url.path
        if path.endswith("/api/repos/create"):
            name = json.loads(request.content)["name"]
            return httpx.Response(200, json={"url": f"https://huggingface.co/me/{name}"})
        if "/preupload/" in path:
            files = json.loads(request.content)["files"]
            return httpx.Response(
                200,
                json={
                    "files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]
                },
            )
        if path.endswith("/validate-yaml"):
            return httpx.Response(200, json={"errors": [], "warnings": []})
        if "/commit/" in path:
            return httpx.Response(
                200, json={"commitUrl": "https://huggingface.co/me/x/commit/0", "commitOid": "0", "success": True}
            )
        return httpx.Response(200, json={"id": "me/x", "private": False, "sha": "0", "siblings": []})

    huggingface_hub.set_client_factory(lambda: httpx.Client(transport=httpx.MockTransport(answer)))
    yield received
    huggingface_hub.set_client_factory(huggingface_hub.utils._http.default_client_factory)


def rows(folder: Path, **fields: Any) -> list[Row]:
    from dataclasses import replace

    return [replace(row, **fields) for row in question_rows(folder, 4)]


@pytest.fixture(scope="module")
def tiny_recipe() -> DictConfig:
    return load_recipe("mmupt_tiny")[0]


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: DictConfig) -> Path:
    """Folder of a finished run, with a report and the model of the tiny recipe."""
    train = rows(tmp_path / "pictures", data_source="geometry3k", **GEOMETRY)
    test = rows(tmp_path / "pictures", data_source="figures")
    for name, split in (("train", train), ("test", test)):
        write_dataset(tmp_path / name, {name: split}, {"rows": len(split)})
    config = tiny_recipe.copy()
    config.data.train_files = str(prompts_path(tmp_path / "train", "train"))
    config.mmupt.evaluation_files = str(prompts_path(tmp_path / "test", "test"))
    config.mmupt.run_folder = str(tmp_path / "run")
    config.actor_rollout_ref.model.path = str(tmp_path / "models" / "base")
    folder = tmp_path / "run"
    shutil.copytree(TINY, folder / "model")
    (folder / "model" / "global_step.txt").write_text("20")
    OmegaConf.save(config, folder / "config.yaml")
    score = {"value": 0.5, "standard_error": 0.02, "questions": 4}
    change = {"before": {**score, "value": 0.25}, "after": score, "difference": {**score, "value": 0.25}}
    write_json(
        folder / "report.json",
        {
            "questions": 4,
            "samples": 8,
            "scores": {"greedy accuracy": change, "pass@8": change, "response length": change},
            "note": None,
            "test_time_training": False,
            "collapse": None,
        },
    )
    (folder / "report.png").write_bytes(b"png")
    record_start(
        folder, ["mmupt", "train", "mmupt_tiny", f"mmupt.run_folder={folder}", f"data.val_files=['{folder}/v']"]
    )
    return folder


def test_the_export_of_a_run_is_a_model_folder_for_transformers(run: Path) -> None:
    exported = export(run)
    assert exported.repo_type == "model" and exported.folder == run / "hub"
    names = set(hub_folder.names(run / "hub"))
    assert names == {file.name for file in TINY.iterdir()} | {"README.md", "report.png"}
    assert (run / "hub" / "model.safetensors").samefile(run / "model" / "model.safetensors")
    assert not (run / "hub" / "config.json").samefile(run / "model" / "config.json")


def test_a_model_card_has_hub_metadata_and_scores_with_errors(run: Path, tmp_path: Path) -> None:
    export(run, name="me/my-model")
    card = ModelCard.load(run / "hub" / "README.md")
    data = card.data.to_dict()
    assert data["pipeline_tag"] == "image-text-to-text" and data["datasets"] == ["hiyouga/geometry3k"]
    assert "base_model" not in data
    (result,) = data["model-index"][0]["results"]
    assert data["model-index"][0]["name"] == "my-model" and result["dataset"]["name"] == "figures"
    assert [(metric["name"], metric["value"]) for metric in result["metrics"]] == [
        ("greedy accuracy, %", "50.0 ± 2.0"),
        ("pass@8, %", "50.0 ± 2.0"),
    ]
    assert "25.0 ± 2.0 | 50.0 ± 2.0 | +25.0 ± 2.0" in card.text
    for text in (
        "MIT",
        "mmupt train mmupt_tiny mmupt.run_folder=run",
        "training steps of this policy | 20",
        "one run with one seed",
    ):
        assert text in " ".join(card.text.split()), text
    assert str(tmp_path) not in card.content


def test_a_model_card_has_the_name_and_licence_of_a_base_model_from_the_hub(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = OmegaConf.load(run / "config.yaml")
    config.actor_rollout_ref.model.path = "Qwen/Qwen2.5-VL-3B-Instruct"
    OmegaConf.save(config, run / "config.yaml")
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: qwen-research\n---\n# A model\n")
    monkeypatch.setattr("mmupt.publishing.model_card.try_to_load_from_cache", lambda *_: str(tmp_path / "README.md"))
    export(run)
    metadata = metadata_load(run / "hub" / "README.md")
    assert metadata["base_model"] == "Qwen/Qwen2.5-VL-3B-Instruct" and metadata["base_model_relation"] == "finetune"
    assert (metadata["license"], metadata["license_name"]) == ("other", "qwen-research")


def test_a_model_card_says_if_the_run_was_not_evaluated(run: Path) -> None:
    (run / "report.json").unlink()
    (run / "report.png").unlink()
    (run / "starts.jsonl").unlink()
    export(run)
    card = ModelCard.load(run / "hub" / "README.md")
    assert "model-index" not in card.data.to_dict()
    assert "was not evaluated" in card.text and "was not recorded" in card.text


def test_the_adapter_of_a_lora_run_is_published_alone_or_merged(run: Path) -> None:
    with pytest.raises(ExportError, match="has no adapter"):
        export(run, adapter=True)
    adapter = run / "model" / "lora_adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"adapter")
    write_json(adapter / "adapter_config.json", {"base_model_name_or_path": None, "r": 8})
    export(run)
    assert "adapter_model.safetensors" not in hub_folder.names(run / "hub")
    export(run, adapter=True)
    names = hub_folder.names(run / "hub")
    assert {"adapter_model.safetensors", "adapter_config.json", "processor_config.json"} <= {*names}
    assert not {"model.safetensors", "config.json"} & {*names}
    assert json.loads((run / "hub" / "adapter_config.json").read_text()) == {"base_model_name_or_path": "base", "r": 8}
    assert metadata_load(run / "hub" / "README.md")["library_name"] == "peft"


def test_an_export_replaces_only_an_earlier_export(run: Path, tmp_path: Path) -> None:
    export(run)
    (run / "model" / "chat_template.jinja").write_text("newer")
    export(run)
    assert (run / "hub" / "chat_template.jinja").read_text() == "newer"
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "README.md").write_text("mine")
    with pytest.raises(ExportError, match=r"README\.md"):
        export(run, foreign)
    assert [*foreign.iterdir()] == [foreign / "README.md"] and (foreign / "README.md").read_text() == "mine"
    with pytest.raises(ExportError, match="is a file"):
        export(run, foreign / "README.md")
    card = run / "hub" / "README.md"
    card.write_text(f"{card.read_text()}\nA paragraph of mine.\n")
    with pytest.raises(ExportError, match="was edited"):
        export(run)
    assert "of mine" in card.read_text()
    (run / "hub" / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"notes\.txt"):
        export(run)


@pytest.mark.parametrize(("removed", "message"), [("model", "has no model"), ("model/tokenizer.json", "no tokenizer")])
def test_an_incomplete_model_is_refused(run: Path, removed: str, message: str) -> None:
    path = run / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ExportError, match=message):
        export(run)
    assert not (run / "hub").exists()


def test_pickled_weights_are_refused(run: Path) -> None:
    (run / "model" / "model.safetensors").rename(run / "model" / "pytorch_model.bin")
    with pytest.raises(ExportError, match="safetensors"):
        export(run)


def test_without_a_token_nothing_is_uploaded(
    run: Path, requests: list[httpx.Request], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run), "--push-to-hub", "me/model"]) == 0
    printed = capsys.readouterr().out
    assert "Dry run, nothing was uploaded" in printed and "model.safetensors" in printed
    assert (run / "hub" / "README.md").is_file() and requests == []


def test_an_invalid_repository_name_is_refused_before_anything_is_written(run: Path) -> None:
    with pytest.raises(SystemExit, match="--push-to-hub"):
        main(["export", str(run), "--push-to-hub", "me/my model"])
    assert not (run / "hub").exists()


def test_with_a_token_exactly_the_files_of_the_folder_are_uploaded(
    run: Path, requests: list[httpx.Request], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_0")
    assert main(["export", str(run), "--push-to-hub", "me/model"]) == 0
    assert "https://huggingface.co/me/model" in capsys.readouterr().out
    (creation,) = (json.loads(request.content) for request in requests if request.url.path.endswith("/create"))
    assert "visibility" not in creation
    (commit,) = (request for request in requests if "/commit/" in request.url.path)
    lines = [json.loads(line) for line in commit.content.splitlines()]
    files = {line["value"]["path"]: line["value"] for line in lines if line["key"] == "file"}
    assert sorted(files) == hub_folder.names(run / "hub")
    assert base64.b64decode(files["README.md"]["content"]) == (run / "hub" / "README.md").read_bytes()


def test_private_requests_a_private_repository_and_refuses_an_existing_public_one(
    run: Path, requests: list[httpx.Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_0")
    with pytest.raises(ExportError, match="is public"):
        export(run, name="me/model").upload(private=True)
    assert json.loads(requests[0].content)["visibility"] == "private"
    assert not [request for request in requests if "/commit/" in request.url.path]


@pytest.fixture
def synthesis(tmp_path: Path) -> Path:
    """Folder of a synthesis with hostile questions about images from two sources."""
    data = write_sources(tmp_path)
    parents, _ = read_parents([data])
    folder = tmp_path / "synthesis"
    overrides = [f"model={tmp_path}/models/writer", f"data={data}", f"output={folder}"]
    folder.mkdir()
    OmegaConf.save(load_synthesis_config(overrides), folder / "config.yaml")
    questions = [f"| {HOSTILE}\n# What is `x`?", "How long is $AB$?", "What?"]
    judged = [
        JudgedCandidate(
            Candidate(f"{parent.id}-direct-r0-0", parent.id, "direct", parent.image, None, "sha", question, question),
            dropped_by="length" if question == "What?" else None,
            reason="1 word" if question == "What?" else None,
            vote_share=0.5,
        )
        for parent, question in zip(parents, questions, strict=False)
    ]
    write_candidates(folder / "candidates.jsonl", judged)
    write_report(folder, judged, ["length"], len(parents), 0)
    write_questions(folder, "train", parents, judged, f"{tmp_path}/models/writer", 0)
    return folder


def write_sources(tmp_path: Path) -> Path:
    from dataclasses import replace

    first, second, *others = rows(tmp_path / "pictures", data_source="geometry3k", **GEOMETRY)
    own = Provenance(str(tmp_path / "my photos"), None, "train", 0, ("a.png",))
    second = replace(second, data_source="images", provenance=own, licence=None)
    write_dataset(tmp_path / "sources", {"train": [first, second, *others]}, {"rows": 4})
    return prompts_path(tmp_path / "sources", "train")


def test_the_datasets_library_loads_exported_questions(synthesis: Path, tmp_path: Path) -> None:
    from datasets import load_dataset
    from PIL.Image import Image

    exported = export(synthesis)
    assert exported.repo_type == "dataset"
    assert hub_folder.names(exported.folder) == ["README.md", "data/train-00000-of-00001.parquet"]
    loaded = load_dataset(str(exported.folder), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"train"} and len(loaded["train"]) == 2
    row = loaded["train"][1]
    assert isinstance(row["images"][0], Image) and row["images"][0].size == (84, 84)
    assert row["prompt"][0]["content"] == "<image>How long is $AB$?"
    assert row["synthesis"]["model"] == "writer" and row["provenance"]["source"] == "my photos"


def test_a_dataset_card_names_the_sources_and_escapes_questions(synthesis: Path, tmp_path: Path) -> None:
    exported = export(synthesis, name="me/questions")
    card = DatasetCard.load(exported.folder / "README.md")
    data = card.data.to_dict()
    assert data["license"] == ["mit", "unknown"] and data["source_datasets"] == ["hiyouga/geometry3k"]
    assert {feature["name"] for feature in data["dataset_info"]["features"]} >= {"images", "prompt", "licence"}
    assert data["dataset_info"]["splits"][0]["num_examples"] == 2
    assert "filters.length.min\\_words" in card.text or "filters.length.min_words" in card.text
    assert "dropped by length" in card.text and "Prompt `direct`" in card.text
    assert "<script" not in card.text.replace("\\<script", "") and "<img" not in card.text.replace("\\<img", "")
    assert not [line for line in card.text.splitlines() if line.startswith("# ") and "What is" in line]
    assert exported.warnings == ["the licence of 1 row of images_direct is not known"]
    assert str(tmp_path) not in card.content


def test_a_dataset_card_names_a_missing_prompt_file(synthesis: Path) -> None:
    config = OmegaConf.load(synthesis / "config.yaml")
    config.prompts.direct = "/gone/direct.txt"
    OmegaConf.save(config, synthesis / "config.yaml")
    export(synthesis)
    assert "`direct.txt` no longer exists" in (synthesis / "hub" / "README.md").read_text()


def test_other_folders_and_the_adapter_of_a_synthesis_are_refused(synthesis: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="not the folder of a run or a synthesis"):
        export(tmp_path)
    with pytest.raises(ExportError, match="--adapter"):
        export(synthesis, adapter=True)
    (tmp_path / "config.yaml").write_text("actor_rollout_ref: {mod")
    with pytest.raises(ValueError, match=r"config\.yaml is damaged: restore or remove it"):
        export(tmp_path)


def test_rows_without_a_licence_get_the_licence_of_the_catalog(tmp_path: Path) -> None:
    origin = Provenance("AI-MO/aimo-validation-amc", None, "train", 0)
    unlicensed = rows(tmp_path, data_source="amc", provenance=origin)
    write_dataset(tmp_path / "amc", {"test": unlicensed}, {})
    (source,) = row_sources([prompts_path(tmp_path / "amc", "test")])
    assert source.licence is not None and source.hub_licence == "apache-2.0" and source.rows == 4


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"provenance": ["the web", None], "licence": [1, 2], "synthesis": [True, False]},
        {"provenance": [{"source": 1}, {"source": 2}], "licence": [["MIT"], []], "data_source": [None, None]},
    ],
)
def test_columns_of_another_format_leave_the_origin_unknown(tmp_path: Path, columns: dict[str, list[Any]]) -> None:
    file = tmp_path / "mine.parquet"
    pq.write_table(pa.table({"prompt": ["how many ?", "how much ?"], **columns}), file)
    (source,) = row_sources([file])
    assert (source.data_set, source.rows) == ("mine", 2)
    assert (source.origin, source.licence, source.repository, source.model) == ("unknown", None, None, None)


def test_a_missing_data_file_is_named(run: Path, tmp_path: Path) -> None:
    prompts_path(tmp_path / "train", "train").unlink()
    with pytest.raises(SystemExit, match=r"error: .*train\.parquet is missing"):
        main(["export", str(run)])


def test_a_text_cannot_close_its_code_block() -> None:
    text = "```\n# A heading\n````"
    block = fenced(text, "text")
    assert block.splitlines()[0] == "`````text" and block.endswith("\n`````")


def test_starts_are_recorded_without_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_record.Path, "home", lambda: Path("/home/me"))
    secret = "ray_kwargs.ray_init.runtime_env.env_vars.WANDB_API_KEY=abc"
    model = "actor_rollout_ref.model.path=/home/me/models/a b"
    record_start(tmp_path, ["mmupt", "train", "mmupt_tiny", secret, "x.hf_token=abc", model])
    record_start(tmp_path, ["mmupt", "train", "mmupt_tiny", "judge.max_tokens=7"])
    first, second = read_starts(tmp_path)
    assert "abc" not in first.command and "'actor_rollout_ref.model.path=~/models/a b'" in first.command
    assert "max_tokens=7" in second.command and second.versions["verl"] == "0.9.1"


@pytest.mark.parametrize("name", ["mmupt.publishing", "mmupt.publishing.card_text", "mmupt.publishing.row_sources"])
def test_examples_run(name: str) -> None:
    result = doctest.testmod(import_module(name))
    assert result.attempted and not result.failed
