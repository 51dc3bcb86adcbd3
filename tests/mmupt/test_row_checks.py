"""The launcher finds bad rows before anything starts, and computes the prompt lengths that veRL would get."""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig
from PIL import Image
from qwen_vl_utils import fetch_image
from transformers import AutoProcessor, Glm4vImageProcessor, Qwen2VLImageProcessor
from verl.trainer.ppo.utils import create_rl_dataset
from verl.utils.dataset.rl_dataset import build_multimodal_processor_inputs

from mmupt.compose import RecipeError, load_recipe
from mmupt.datasets import data_set
from mmupt.evaluation.messages import image_tokens
from mmupt.training.row_checks import PromptLengths, bad_rows, check_leakage, check_rows
from mmupt_data.figure_task import draw_figure, encode_png, sample_figures
from mmupt_data.row_schema import NO_QUESTION, Row
from mmupt_data.writer import MANIFEST, write_dataset
from verl_ext.datasets.unlabelled_dataset import SKIPPED_PROMPT
from verl_ext.files import sha256

FIGURE = encode_png(draw_figure(sample_figures("train", 1, 0)[0]))
OTHER = encode_png(draw_figure(sample_figures("test", 1, 0)[0]))
GRAY = encode_png(Image.new("RGB", (84, 84), "gray"))


def row(id: str, question: str = "", images: tuple[bytes, ...] = (FIGURE,)) -> Row:
    return Row(id, "mine", question or f"<image>what is the {id} ?", images, "free_form", "1")


def recipe(folder: Path, *overrides: str) -> DictConfig:
    """The tiny recipe with the data files of a folder."""
    files = [f"data.{key}={folder / name}.parquet" for key, name in (("train_files", "train"), ("val_files", "test"))]
    settings = [*files, f"mmupt.run_folder={folder / 'run'}", "mmupt.evaluation_files=null"]
    return load_recipe("mmupt_tiny", [*settings, *overrides])[0]


def write_by_hand(folder: Path, split: str, rows: list[Row]) -> Path:
    """Write unchecked files without a manifest, as another program would."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([row.without_answer() for row in rows]), folder / f"{split}.parquet")
    pq.write_table(pa.Table.from_pylist([row.truth() for row in rows]), folder / f"{split}.truth.parquet")
    return folder / f"{split}.parquet"


def kinds(file: Path, lengths: PromptLengths | None = None, training: bool = True) -> dict[int, str]:
    """Row -> kind of its first problem, for the bad rows of a file."""
    return {bad.row: bad.problems[0].kind for bad in bad_rows(str(file), lengths, training)}


def test_rows_of_files_without_a_manifest_are_checked_in_full(tmp_path: Path) -> None:
    rows = [
        row("a"),
        row("b", images=(FIGURE[:-40],)),
        row("c", "what ?"),
        row("d", "<image>what is the a ?"),
        row("e", "how much is 1 + 1 ?", images=()),
        replace(row("f", "<image>"), question_type=NO_QUESTION),
        row("g", "<image>what \ufffd ?"),
    ]
    file = write_by_hand(tmp_path, "train", rows)
    expected = {1: "truncated image", 2: "image tags", 3: "duplicate", 5: "no question", 6: "broken text"}
    assert kinds(file) == expected
    # An evaluation keeps every row that a model can be asked.
    assert kinds(file, training=False) == {1: "truncated image"}


def test_rows_checked_when_written_are_checked_again_only_if_the_file_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(tmp_path, {"train": [row("a"), row("b")]}, {})
    monkeypatch.setattr("mmupt.training.row_checks.problems_of", lambda _: pytest.fail("decoded again"))
    assert kinds(tmp_path / "train.parquet") == {}
    monkeypatch.undo()
    write_by_hand(tmp_path, "train", [row("a"), row("b", images=(FIGURE[:-40],))])
    assert (tmp_path / MANIFEST).is_file() and kinds(tmp_path / "train.parquet") == {1: "truncated image"}


def test_rows_checked_under_another_schema_version_are_checked_again(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"train": [row("a"), row("b")]}, {})
    file = write_by_hand(tmp_path, "train", [row("a"), row("b", images=(FIGURE[:-40],))])
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    manifest["sha256"][file.name] = sha256(file)
    for schema, expected in ((manifest["schema"], {}), (manifest["schema"] - 1, {1: "truncated image"})):
        (tmp_path / MANIFEST).write_text(json.dumps({**manifest, "schema": schema}))
        assert kinds(file) == expected


def test_a_bad_row_of_an_image_folder_is_reported_with_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    for name, image in (("a.png", FIGURE), ("b.png", OTHER)):
        (tmp_path / "photos" / name).write_bytes(image)
    (tmp_path / "photos" / "metadata.jsonl").write_text('{"file_name": "a.png", "question": "what is the sum ?"}')
    data_set("images").prepare(tmp_path, str(tmp_path / "photos"))
    write_by_hand(tmp_path, "test", [row("t", images=(GRAY,))])
    check_rows(recipe(tmp_path))
    assert "row 1, id images-train-000001, file b.png: no question" in capsys.readouterr().out


def test_bad_rows_are_left_out_of_training_and_listed_on_the_console(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = " ".join(["what"] * 80)
    write_by_hand(tmp_path, "train", [row("a"), row("b", images=(b"",)), row("c", f"<image>{long}"), row("d")])
    write_by_hand(tmp_path, "test", [row("t", images=(OTHER,)), row("u", f"<image>{long}", images=(OTHER,))])
    config = recipe(tmp_path)
    check_rows(config)
    output = capsys.readouterr().out
    assert f"{tmp_path / 'train.parquet'}: 2 rows left out" in output
    assert "row 1, id b: no image (image 0 is empty)" in output and "row 2, id c: long prompt (" in output
    processor = AutoProcessor.from_pretrained(config.actor_rollout_ref.model.path)
    assert f"{tmp_path / 'test.parquet'}: 1 row not asked and counted as wrong: row 1, id u: long prompt" in output
    for key, ids in (("train_files", ["a", "d"]), ("val_files", ["t", "u"])):
        dataset = create_rl_dataset(config.data[key], config.data, processor.tokenizer, processor)
        assert [dataset[index]["id"] for index in range(len(dataset))] == ids
    dropped = json.loads(Path(config.data.dropped_rows).read_text())
    assert [row["id"] for row in dropped[config.data.train_files]] == ["b", "c"]


def test_a_bad_row_stops_the_run_under_the_policy_stop(tmp_path: Path) -> None:
    write_by_hand(tmp_path, "train", [row("a"), row("b", images=(b"",))])
    write_by_hand(tmp_path, "test", [row("t", images=(OTHER,))])
    with pytest.raises(RecipeError, match=r"train\.parquet: 1 row cannot be used: row 1, id b: no image"):
        check_rows(recipe(tmp_path, "data.bad_rows=stop"))


def test_an_evaluation_leaves_out_no_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_by_hand(tmp_path, "train", [row("train")])
    bad = [row("h", images=(OTHER,)), row("i", images=(OTHER[:-40],)), row("j", "<image>what is the h ?", (OTHER,))]
    write_by_hand(tmp_path, "test", bad)
    held_out = write_by_hand(tmp_path, "held_out", bad)
    config = recipe(tmp_path, f"mmupt.evaluation_files={held_out}")
    check_rows(config)
    output = capsys.readouterr().out
    for name in ("test", "held_out"):
        assert f"{name}.parquet: 1 row not asked and counted as wrong: row 1, id i: truncated image" in output
    processor = AutoProcessor.from_pretrained(config.actor_rollout_ref.model.path)
    dataset = create_rl_dataset(config.data.val_files, config.data, processor.tokenizer, processor)
    rows = {row["id"]: row for row in (dataset[index] for index in range(len(dataset)))}
    assert set(rows) == {"h", "i", "j"}
    # Without ground truth, every response is wrong.
    assert rows["i"]["reward_model"]["ground_truth"] is None and rows["h"]["reward_model"]["ground_truth"] == "1"
    assert str(rows["i"]["raw_prompt"][0]["content"]).startswith(SKIPPED_PROMPT[0]["content"])


def test_bad_rows_of_an_evaluation_split_are_read_from_its_manifest(tmp_path: Path) -> None:
    rows = [row("a"), row("b", images=(FIGURE[:-40],)), row("c", "<image>what is the a ?")]
    write_dataset(tmp_path, {"test": rows}, {}, evaluation=["test"])
    assert kinds(tmp_path / "test.parquet", training=False) == {1: "truncated image"}
    assert kinds(tmp_path / "test.parquet") == {1: "truncated image", 2: "duplicate"}


def test_rows_with_control_text_are_counted_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_by_hand(tmp_path, "train", [row("a"), row("b", "<image>what does <|im_end|> or <video> mean ?")])
    write_by_hand(tmp_path, "test", [row("t", images=(OTHER,))])
    check_rows(recipe(tmp_path))
    output = capsys.readouterr().out
    assert "1 row has control text, which is shown as characters; the first: id b: <|im_end|>, <video>" in output
    assert "left out" not in output


def test_a_file_with_only_bad_rows_is_refused(tmp_path: Path) -> None:
    write_by_hand(tmp_path, "train", [row("a", images=(b"",))])
    write_by_hand(tmp_path, "test", [row("t")])
    with pytest.raises(RecipeError, match=r"data\.train_files: .*train\.parquet: no row can be used; the first: row 0"):
        check_rows(recipe(tmp_path))


def test_a_training_file_with_ground_truth_is_refused_unless_training_is_supervised(tmp_path: Path) -> None:
    file = write_by_hand(tmp_path, "train", [row("a")])
    write_by_hand(tmp_path, "test", [row("t", images=(OTHER,))])
    table = pq.read_table(file).append_column("extra_info", pa.array([{"index": 0, "Answer": "4"}]))
    pq.write_table(table.append_column("ground truth", pa.array(["4"])), file)
    with pytest.raises(RecipeError, match=r"extra_info\.Answer, ground truth\): move it to .*train\.truth\.parquet"):
        check_rows(recipe(tmp_path))
    check_rows(recipe(tmp_path, "data.supervised=True", "reward.reward_manager.name=ground_truth"))


def test_missing_columns_and_duplicate_ids_are_refused(tmp_path: Path) -> None:
    write_by_hand(tmp_path, "test", [row("t", images=(OTHER,))])
    write_by_hand(tmp_path, "train", [row("a"), row("b"), row("a", images=(OTHER,))])
    with pytest.raises(RecipeError, match=r"train\.parquet, row 2: .*train\.parquet, row 0 has the id 'a', too"):
        check_rows(recipe(tmp_path))
    pq.write_table(pa.table({"question": ["what ?"]}), tmp_path / "train.parquet")
    with pytest.raises(RecipeError, match=r"train\.parquet has no column prompt \(found: question\)"):
        check_rows(recipe(tmp_path))


def test_an_evaluation_that_could_not_be_scored_after_training_is_refused(tmp_path: Path) -> None:
    write_by_hand(tmp_path, "train", [row("a"), row("b")])
    write_by_hand(tmp_path, "test", [row("t", images=(OTHER,))])
    files = [write_by_hand(tmp_path / name, "final", [row("x", f"<image>{name} ?", (GRAY,))]) for name in "ab"]
    with pytest.raises(RecipeError, match="has the id 'x', too"):
        check_rows(recipe(tmp_path, f"mmupt.evaluation_files=[{files[0]},{files[1]}]"))
    write_by_hand(tmp_path / "a", "final", [replace(row("x"), data_source="one"), row("y"), row("z")])
    with pytest.raises(RecipeError, match=r"mmupt\.evaluation_files: .* single question of one has no standard error"):
        check_rows(recipe(tmp_path, f"mmupt.evaluation_files={files[0]}"))


def test_a_validation_that_could_not_be_graded_is_refused(tmp_path: Path) -> None:
    write_by_hand(tmp_path, "train", [row("a"), row("b")])
    write_by_hand(tmp_path, "test", [replace(row("t", images=(OTHER,)), data_source="mathvista")])
    with pytest.raises(RecipeError, match=r"data\.val_files: question 't' has no 'answer_type' in its metadata"):
        check_rows(recipe(tmp_path))
    # A custom reward function may not need the metadata.
    check_rows(recipe(tmp_path, "reward.custom_reward_function.path=my_function.py"))


@pytest.mark.parametrize("split", ["val_files", "mmupt.evaluation_files"])
def test_a_recipe_that_evaluates_on_training_rows_is_refused(tmp_path: Path, split: str) -> None:
    write_by_hand(tmp_path, "train", [row("a"), row("b", images=(OTHER,))])
    write_by_hand(tmp_path, "test", [row("t", "<image>is that another question ?", images=(GRAY,))])
    copied = write_by_hand(tmp_path, "copied", [row("u", "<image>how does that look ?")])
    key = split if "." in split else f"data.{split}"
    config = recipe(tmp_path, "mmupt.leakage.images=exact")
    check_leakage(config)
    leaky = recipe(tmp_path, "mmupt.leakage.images=exact", f"{key}={copied}")
    with pytest.raises(RecipeError, match=r"mmupt\.leakage\.allowed_pairs=N"):
        check_leakage(leaky)
    assert (tmp_path / "run" / "leakage" / "leakage.html").is_file()
    check_leakage(recipe(tmp_path, "mmupt.leakage.images=exact", f"{key}={copied}", "mmupt.leakage.allowed_pairs=1"))
    check_leakage(recipe(tmp_path, f"{key}={copied}", "mmupt.leakage.allowed_pairs=null"))


def test_test_time_training_exempts_only_the_files_it_trains_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = write_by_hand(tmp_path, "train", [row("a"), row("b", images=(OTHER,))])
    write_by_hand(tmp_path, "test", [row("t", "<image>is that another question ?", images=(GRAY,))])
    copied = write_by_hand(tmp_path, "copied", [row("u", "<image>how does that look ?")])
    own = ("mmupt.leakage.images=exact", f"mmupt.evaluation_files={trained}")
    with pytest.raises(RecipeError, match=r"mmupt\.leakage\.allowed_pairs=N"):
        check_leakage(recipe(tmp_path, *own))
    check_leakage(recipe(tmp_path, *own, "mmupt.test_time_training=True"))
    assert f"Test-time training on {trained}, without labels" in capsys.readouterr().out
    with pytest.raises(RecipeError, match=r"mmupt\.leakage\.allowed_pairs=N"):
        check_leakage(recipe(tmp_path, *own, "mmupt.test_time_training=True", f"data.val_files={copied}"))
    with pytest.raises(RecipeError, match=r"data\.train_files has none of them: set it to mmupt\.evaluation_files"):
        check_leakage(recipe(tmp_path, own[0], "mmupt.test_time_training=True"))
    labelled = ("data.supervised=True", "reward.reward_manager.name=ground_truth")
    with pytest.raises(RecipeError, match=r"set data\.supervised=False"):
        check_leakage(recipe(tmp_path, *own, *labelled, "mmupt.test_time_training=True"))


def real_length(config: DictConfig, file: Path, index: int, training: bool) -> int:
    """The number of prompt tokens that veRL's dataset and the processor make of a row."""
    processor = AutoProcessor.from_pretrained(config.actor_rollout_ref.model.path)
    data = config.data.copy()
    if not training:
        data.train_files = "none.parquet"
    dataset = create_rl_dataset(str(file), data, processor.tokenizer, processor)
    messages = dataset[index]["raw_prompt"]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    images, _, _ = dataset._process_multi_modal_info(messages, dataset.image_patch_size, data)
    inputs = build_multimodal_processor_inputs(processor, text=[text], images=images, videos=None, audio=None)
    return (
        int(inputs["input_ids"][0].shape[-1])
        if hasattr(inputs["input_ids"][0], "shape")
        else len(inputs["input_ids"][0])
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("limits", [(None, None), (28 * 28 * 20, 28 * 28 * 30)])
def test_computed_prompt_lengths_equal_those_of_verl(
    tmp_path: Path, limits: tuple[int | None, int | None], training: bool
) -> None:
    def scaled(width: int, height: int) -> bytes:
        return encode_png(draw_figure(sample_figures("train", 1, 0)[0]).resize((width, height)))

    rows: list[Row] = [
        row("a"),
        row("b", "what is 1 + 1 ?", images=()),
        row("c", "<image>what <image>is the sum ?", images=(scaled(300, 200), scaled(40, 500))),
        row("d", images=(scaled(40, 600),)),
    ]
    file = write_by_hand(tmp_path, "train", rows)
    write_by_hand(tmp_path, "test", rows)
    prefix = "" if training else "validation_"
    pixels = [
        f"data.{prefix}{name}_pixels={'null' if value is None else value}"
        for name, value in zip(("min", "max"), limits, strict=True)
    ]
    config = recipe(tmp_path, *pixels, "data.instruction=put the answer in a box", "data.max_prompt_length=1")
    if limits[0] is not None:
        # The tiny model's processor scales every image to 84 x 84 px, which would hide the limits.
        use_wide_processor(config, tmp_path)
    lengths = PromptLengths(config, training)
    for index, written in enumerate(rows):
        (problem,) = lengths.check({**written.without_answer()})
        tokens = int(problem.detail.split()[0])
        assert tokens == real_length(config, file, index, training), written.id


def use_wide_processor(config: DictConfig, folder: Path) -> None:
    """Give the recipe a copy of the model whose processor accepts images of many sizes."""
    model = AutoProcessor.from_pretrained(config.actor_rollout_ref.model.path)
    model.image_processor.size = {"shortest_edge": 28 * 28 * 4, "longest_edge": 28 * 28 * 1000}
    model.save_pretrained(folder / "model")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / "model" / name).write_bytes((Path("recipes/mmupt/tiny/model") / name).read_bytes())
    config.actor_rollout_ref.model.path = str(folder / "model")


def test_an_image_too_narrow_for_scaling_is_a_bad_row(tmp_path: Path) -> None:
    narrow = encode_png(Image.new("RGB", (29, 900)))
    file = write_by_hand(tmp_path, "train", [row("a", images=(narrow,))])
    config = recipe(tmp_path, f"data.max_pixels={28 * 28 * 30}")
    assert kinds(file, PromptLengths(config, training=True)) == {0: "extreme aspect ratio"}


@settings(max_examples=60)
@given(st.integers(28, 900), st.integers(28, 900), st.sampled_from(["Qwen2.5-VL", "Qwen3-VL", "GLM-4.1V"]))
def test_computed_image_tokens_equal_those_of_the_processor(width: int, height: int, family: str) -> None:
    limits, size = {"min_pixels": 20_000, "max_pixels": 60_000}, {"shortest_edge": 56 * 56, "longest_edge": 50_000}
    processor: Any = {
        "Qwen2.5-VL": lambda: Qwen2VLImageProcessor(size=dict(size)),
        "Qwen3-VL": lambda: Qwen2VLImageProcessor(size=dict(size), patch_size=16),
        "GLM-4.1V": lambda: Glm4vImageProcessor(size=dict(size)),
    }[family]()
    patch = processor.patch_size
    image = fetch_image({"image": Image.new("RGB", (width, height)), **limits}, image_patch_size=patch)
    _, rows, columns = processor(image, return_tensors="np")["image_grid_thw"][0]
    assert image_tokens(width, height, processor, limits) == rows * columns // 4


def write_foreign(folder: Path, split: str, **columns: Any) -> Path:
    """Write a file in the format of another program: prompts are plain text, and there are no ids."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = len(next(iter(columns.values())))
    prompts = [f"what is {split} {index} ?" for index in range(rows)]
    pq.write_table(pa.table({"prompt": prompts, **columns}), folder / f"{split}.parquet")
    return folder / f"{split}.parquet"


def test_training_uses_the_rows_of_a_foreign_file_that_pass_the_checks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "figure.png").write_bytes(FIGURE)
    encoded = base64.b64encode(OTHER).decode()
    train = write_foreign(tmp_path, "train", image=["figure.png", "https://example.org/a.png", encoded, "gone.png"])
    write_foreign(tmp_path, "test", image=[encoded], answer=[4])
    config = recipe(tmp_path)
    check_rows(config)
    output = capsys.readouterr().out
    name = f"{tmp_path.name}-train"
    assert f"{train}: 2 rows left out: row 1, id {name}-000001: row (image 0 is the address 'https" in output
    processor = AutoProcessor.from_pretrained(config.actor_rollout_ref.model.path)
    dataset = create_rl_dataset(str(train), config.data, processor.tokenizer, processor)
    assert [dataset[index]["id"] for index in range(len(dataset))] == [f"{name}-000000", f"{name}-000002"]
    assert Path(config.data.cache_dir).is_relative_to(tmp_path / "run")
    held_out = create_rl_dataset(config.data.val_files, config.data, processor.tokenizer, processor)
    assert held_out[0]["reward_model"]["ground_truth"] == "4"
    with pytest.raises(RecipeError, match=r"2 rows cannot be used: row 1, .* nothing is downloaded.*data\.bad_rows"):
        check_rows(recipe(tmp_path, "data.bad_rows=stop"))


@pytest.mark.parametrize("key", ["data.train_files", "data.val_files", "mmupt.evaluation_files"])
def test_a_file_that_is_not_parquet_or_has_no_rows_is_refused(key: str, tmp_path: Path) -> None:
    write_by_hand(tmp_path, "train", [row("a")])
    write_by_hand(tmp_path, "test", [row("t", images=(OTHER,))])
    (tmp_path / "text.parquet").write_text("what ?")
    with pytest.raises(RecipeError, match=r"text\.parquet is not a parquet file"):
        check_rows(recipe(tmp_path, f"{key}={tmp_path / 'text.parquet'}"))
    write_foreign(tmp_path, "empty", image=pa.array([], pa.binary()))
    with pytest.raises(RecipeError, match=r"empty\.parquet has no rows"):
        check_rows(recipe(tmp_path, f"{key}={tmp_path / 'empty.parquet'}"))


def test_incomplete_ground_truth_is_refused(tmp_path: Path) -> None:
    write_by_hand(tmp_path, "train", [row("a")])
    test = write_by_hand(tmp_path, "test", [row("t", images=(OTHER,)), row("u", images=(GRAY,))])
    pq.write_table(pa.table({"id": ["t"], "answer": ["4"]}), test.with_suffix(".truth.parquet"))
    with pytest.raises(RecipeError, match=r"test\.truth\.parquet has no answer for 1 of the 2 rows .* row 1, id u"):
        check_rows(recipe(tmp_path))
