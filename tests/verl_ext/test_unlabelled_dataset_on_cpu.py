"""Training rows have no ground truth; validation rows get theirs from the sidecar."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig, OmegaConf
from transformers import AutoProcessor
from verl.trainer.ppo.utils import create_rl_dataset

from mmupt_data.figure_task import write_figures
from verl_ext.datasets.ground_truth import read_truth, sidecar_of, truth_columns
from verl_ext.datasets.unlabelled_dataset import UnlabelledDataset

MODEL = Path("recipes/mmupt/tiny/model")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_figures(tmp_path / "figures", train=6, validation=6, test=3)
    return tmp_path / "figures"


def config(train: Path, validation: Path, **changes: Any) -> DictConfig:
    return OmegaConf.create(
        {
            "train_files": str(train),
            "val_files": str(validation),
            "custom_cls": {"path": "pkg://verl_ext.datasets.unlabelled_dataset", "name": "UnlabelledDataset"},
            "filter_overlong_prompts": False,
            "cache_dir": str(train.parent / "cache"),
            "instruction": None,
            "min_pixels": None,
            "max_pixels": None,
            "validation_min_pixels": None,
            "validation_max_pixels": None,
            "dropped_rows": None,
            "generated_share": None,
            "seed": 1,
            **changes,
        }
    )


def load(file: Path, settings: DictConfig) -> UnlabelledDataset:
    processor = AutoProcessor.from_pretrained(MODEL)
    return create_rl_dataset(str(file), settings, processor.tokenizer, processor)


def test_our_keys_have_defaults(folder: Path) -> None:
    ours = {"instruction", "dropped_rows", "generated_share", "cache_dir", "seed"}
    ours |= {f"{prefix}{name}_pixels" for prefix in ("", "validation_") for name in ("min", "max")}
    full = config(folder / "train.parquet", folder / "validation.parquet")
    bare = OmegaConf.create({name: value for name, value in full.items() if name not in ours})
    OmegaConf.set_struct(bare, True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HOME", str(folder))
        for file in (full.train_files, full.val_files):
            rows, expected = load(file, bare), load(file, full)
            assert [rows[i]["id"] for i in range(len(rows))] == [expected[i]["id"] for i in range(len(expected))]
            assert [rows[i]["reward_model"] for i in range(len(rows))] == [
                expected[i]["reward_model"] for i in range(len(expected))
            ]


def rewrite_truth(file: Path, answers: list[str]) -> None:
    ids = [row["id"] for row in pq.read_table(sidecar_of(file)).to_pylist()]
    pq.write_table(pa.table({"id": ids, "answer": answers}), sidecar_of(file))


def test_a_training_row_is_the_same_whether_its_truth_is_correct_permuted_or_deleted(folder: Path) -> None:
    train, settings = folder / "train.parquet", config(folder / "train.parquet", folder / "validation.parquet")

    def rows() -> list[dict[str, Any]]:
        dataset = load(train, settings)
        return [
            {key: value for key, value in dataset[i].items() if key not in ("raw_prompt", "dummy_tensor")}
            for i in range(len(dataset))
        ]

    with_truth = rows()
    answers = [row["answer"] for row in pq.read_table(sidecar_of(train)).to_pylist()]
    rewrite_truth(train, answers[::-1])
    permuted = rows()
    sidecar_of(train).unlink()
    assert with_truth == permuted == rows()
    assert all(row["reward_model"] == {"style": "rule", "ground_truth": None} for row in with_truth)
    assert not any("answer" in row for row in with_truth)


def test_under_supervision_a_training_row_has_the_truth_of_its_id(folder: Path) -> None:
    train = folder / "train.parquet"
    settings = config(train, folder / "validation.parquet", supervised=True)
    dataset = load(train, settings)
    rows = {dataset[i]["id"]: dataset[i]["reward_model"]["ground_truth"] for i in range(len(dataset))}
    assert rows == read_truth([train])
    sidecar_of(train).unlink()
    with pytest.raises(ValueError, match=r"train\.parquet has no truth"):
        load(train, settings)


def test_a_validation_row_has_the_truth_of_its_id_in_any_order_of_the_sidecar(folder: Path) -> None:
    validation = folder / "validation.parquet"
    truth = {row["id"]: row["answer"] for row in pq.read_table(sidecar_of(validation)).to_pylist()}
    pq.write_table(pq.read_table(sidecar_of(validation)).take(list(range(len(truth)))[::-1]), sidecar_of(validation))
    dataset = load(validation, config(folder / "train.parquet", validation))
    assert {dataset[i]["id"]: dataset[i]["reward_model"]["ground_truth"] for i in range(len(dataset))} == truth


def test_the_prompt_holds_the_image_within_the_pixel_limits(folder: Path) -> None:
    train = folder / "train.parquet"
    settings = config(train, folder / "validation.parquet", min_pixels=28 * 28, max_pixels=56 * 56)
    row = load(train, settings)[0]
    image, question = row["raw_prompt"][0]["content"]
    assert (image["min_pixels"], image["max_pixels"]) == (784, 3136) and image["image"].canvas == (84, 84)
    assert question["type"] == "text" and "<image>" not in question["text"]
    assert "images" not in row


def test_the_instruction_follows_the_question_after_a_space(folder: Path) -> None:
    train = folder / "train.parquet"
    plain = load(train, config(train, folder / "validation.parquet"))[0]["raw_prompt"][0]["content"][1]["text"]
    settings = config(train, folder / "validation.parquet", instruction="Think, then use \\boxed{}.")
    row = load(train, settings)
    assert row[0]["raw_prompt"][0]["content"][1]["text"] == f"{plain} Think, then use \\boxed{{}}."
    assert row[0]["raw_prompt"] == row[0]["raw_prompt"]


def test_a_validation_file_without_truth_is_refused_by_name(folder: Path) -> None:
    validation = folder / "validation.parquet"
    sidecar_of(validation).unlink()
    with pytest.raises(ValueError, match=r"validation\.parquet has no truth: .*validation\.truth\.parquet is missing"):
        load(validation, config(folder / "train.parquet", validation))


def test_a_file_cannot_be_both_trained_and_validated_on_under_any_name(folder: Path) -> None:
    train, validation = folder / "train.parquet", folder / "validation.parquet"
    several = config(train, validation)
    several.train_files = [str(train), str(validation)]
    (folder / "link.parquet").symlink_to(train)
    for settings in (several, config(train, train), config(train, folder / "link.parquet")):
        with pytest.raises(ValueError, match=r"\.parquet is in data\.train_files and in data\.val_files"):
            load(train, settings)


def test_validation_has_separate_pixel_limits(folder: Path) -> None:
    train, validation = folder / "train.parquet", folder / "validation.parquet"
    limits = {"min_pixels": 784, "max_pixels": 3136, "validation_min_pixels": 1568, "validation_max_pixels": 7056}
    settings = config(train, validation, **limits)
    (training_image, _), (validation_image, _) = (
        load(file, settings)[0]["raw_prompt"][0]["content"] for file in (train, validation)
    )
    assert (training_image["min_pixels"], training_image["max_pixels"]) == (784, 3136)
    assert (validation_image["min_pixels"], validation_image["max_pixels"]) == (1568, 7056)


@pytest.mark.parametrize("column", ["reward_model", "Answer", "ground truth", "solution"])
def test_training_rows_with_a_truth_are_refused_unless_supervised(folder: Path, column: str) -> None:
    train = folder / "train.parquet"
    table = pq.read_table(train)
    pq.write_table(table.append_column(column, pa.array([{"ground_truth": "4"}] * len(table))), train)
    with pytest.raises(ValueError, match=rf"train\.parquet: a label-free recipe trains on no file .*{column}"):
        load(train, config(train, folder / "validation.parquet"))
    dataset = load(train, config(train, folder / "validation.parquet", supervised=True))
    assert dataset[0]["reward_model"]["ground_truth"] == read_truth([train])[dataset[0]["id"]]


def test_a_truth_inside_a_struct_is_reported_by_its_dotted_name() -> None:
    text = pa.string()
    inner = pa.struct([("index", pa.int64()), ("answer", text)])
    schema = pa.schema([("id", text), ("choices", pa.list_(text)), ("extra_info", inner), ("Ground-Truth", text)])
    assert truth_columns(schema) == ["extra_info.answer", "Ground-Truth"]


def test_listed_rows_are_left_out_by_file_and_id(folder: Path) -> None:
    train, validation = folder / "train.parquet", folder / "validation.parquet"
    ids = pq.read_table(train)["id"].to_pylist()
    listing = folder / "dropped.json"
    settings = config(train, validation, dropped_rows=str(listing))
    assert len(load(train, settings)) == 6
    listing.write_text(json.dumps({str(train): [{"id": ids[1]}, {"id": ids[4]}], "other.parquet": [{"id": ids[0]}]}))
    dataset = load(train, settings)
    assert [dataset[index]["id"] for index in range(len(dataset))] == [ids[0], ids[2], ids[3], ids[5]]
    assert len(load(validation, settings)) == 6


def test_a_training_row_has_no_provenance_licence_or_synthesis(folder: Path) -> None:
    train = folder / "train.parquet"
    assert not {"provenance", "licence", "synthesis"} & set(
        load(train, config(train, folder / "validation.parquet"))[0]
    )


def test_older_files_without_the_column_synthesis_are_read_alone_and_with_newer_ones(folder: Path) -> None:
    new, old = folder / "train.parquet", folder / "old.parquet"
    before = pq.read_table(folder / "test.parquet").drop_columns(["synthesis"])
    pq.write_table(before, old)
    for files, rows in (([old], 3), ([old, new], 9), ([new, old], 9)):
        names = list(map(str, files))
        settings = config(new, folder / "validation.parquet", train_files=names)
        processor = AutoProcessor.from_pretrained(MODEL)
        assert len([*create_rl_dataset(names, settings, processor.tokenizer, processor)]) == rows


def test_self_generated_questions_have_the_requested_share(folder: Path) -> None:
    train, written = folder / "train.parquet", folder / "written.parquet"
    rows = pq.read_table(train).to_pylist()
    by_model = {"parent": "p", "strategy": "direct", "model": "m", "round": 1, "prompt_sha256": "0", "vote_share": None}
    generated = [{**row, "id": f"own-{row['id']}", "synthesis": by_model} for row in rows]
    pq.write_table(pa.Table.from_pylist(generated, schema=pq.read_schema(train)), written)
    processor = AutoProcessor.from_pretrained(MODEL)
    names = [str(train), str(written)]

    def ids(share: float | None) -> list[str]:
        settings = config(train, folder / "validation.parquet", train_files=names, generated_share=share)
        return [row["id"] for row in create_rl_dataset(names, settings, processor.tokenizer, processor)]

    assert len(ids(None)) == 12
    for share, own_count, total in ((0.25, 2, 8), (0.5, 6, 12), (0.75, 6, 8), (1.0, 6, 6)):
        mixed = ids(share)
        assert (sum(id_.startswith("own-") for id_ in mixed), len(mixed)) == (own_count, total)
        assert mixed == ids(share)
    # Validation is not mixed.
    file = folder / "validation.parquet"
    assert len(load(file, config(train, file, train_files=names, generated_share=0.5))) == 6


def test_sidecars_that_contradict_each_other_or_lack_a_column_are_refused_by_name(tmp_path: Path) -> None:
    first, second = tmp_path / "a.parquet", tmp_path / "b.parquet"
    pq.write_table(pa.table({"id": ["1"], "answer": ["4"]}), sidecar_of(first))
    pq.write_table(pa.table({"id": ["1"], "answer": ["5"]}), sidecar_of(second))
    with pytest.raises(ValueError, match=r"b\.truth\.parquet contradicts .* row '1'"):
        read_truth([first, second])
    pq.write_table(pa.table({"id": ["1"]}), sidecar_of(second))
    with pytest.raises(ValueError, match=r"b\.truth\.parquet must have the columns id and answer"):
        read_truth([second])


def files_in_verls_format(folder: Path) -> tuple[Path, Path]:
    """Write a training and a validation file like veRL's scripts: without ids, and with the truth in the second."""
    images_of_rows = [row["images"] for row in pq.read_table(folder / "train.parquet").to_pylist()]
    rows = [
        {
            "data_source": "somebody/geometry",
            "prompt": [{"role": "user", "content": f"<image>what is {index} ?"}],
            "images": [{"bytes": image["bytes"], "path": None} for image in images],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": str(index)},
            "extra_info": {"split": "train", "index": 100 + index, "answer": str(index), "question": "what ?"},
        }
        for index, images in enumerate(images_of_rows)
    ]
    validation = folder / "theirs.parquet"
    pq.write_table(pa.Table.from_pylist(rows), validation)
    for row in rows:
        del row["reward_model"], row["extra_info"]["answer"]
    pq.write_table(pa.Table.from_pylist(rows), folder / "mine.parquet")
    return folder / "mine.parquet", validation


def test_files_in_verls_format_are_trained_and_validated_on(folder: Path) -> None:
    train, validation = files_in_verls_format(folder)
    settings = config(train, validation)
    with pytest.raises(ValueError, match=r"theirs\.parquet: a label-free .*reward_model, extra_info\.answer"):
        load(validation, config(validation, train))
    row, train_row = load(validation, settings)[2], load(train, settings)[2]
    assert row["reward_model"] == {"style": "rule", "ground_truth": "2", "metadata": None}
    assert train_row["reward_model"] == {"style": "rule", "ground_truth": None}
    assert (row["id"], train_row["id"]) == ("figures-theirs-000002", "figures-mine-000002")
    assert (
        train_row["extra_info"] == {"split": "train", "index": 102, "question": "what ?"} and train_row["index"] == 102
    )
    assert "agent_name" not in train_row and "ability" not in train_row
    assert [part["type"] for part in train_row["raw_prompt"][0]["content"]] == ["image", "text"]


def test_files_of_different_columns_are_trained_on_together(folder: Path) -> None:
    mine, _ = files_in_verls_format(folder)
    files = [str(folder / "train.parquet"), str(mine)]
    settings = config(folder / "train.parquet", folder / "validation.parquet")
    settings.train_files = files
    processor = AutoProcessor.from_pretrained(MODEL)
    dataset = create_rl_dataset(files, settings, processor.tokenizer, processor)
    assert len(dataset) == 12 and dataset[0].keys() == dataset[11].keys()


def test_converted_rows_are_in_the_cache_of_the_run_and_nowhere_else(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "home"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", elsewhere)
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: pytest.fail("veRL's own loader was called"))
    train, cache = folder / "train.parquet", tmp_path / "run" / "rows"
    settings = config(train, folder / "validation.parquet", cache_dir=str(cache))
    first, second = load(train, settings), load(train, settings)
    (kept,) = cache.iterdir()
    assert kept.suffix == ".arrow" and not elsewhere.exists()
    # A dataset that was loaded before the cache was rewritten keeps its rows.
    assert first[5]["id"] == second[5]["id"]


def test_a_random_sample_of_rows_may_be_loaded(folder: Path) -> None:
    train, processor = folder / "train.parquet", AutoProcessor.from_pretrained(MODEL)
    settings = config(train, folder / "validation.parquet", shuffle=True)
    all_ids = {row["id"] for row in pq.read_table(train).to_pylist()}

    def drawn() -> list[str]:
        dataset = create_rl_dataset(str(train), settings, processor.tokenizer, processor, max_samples=4)
        return [dataset[index]["id"] for index in range(len(dataset))]

    assert len(set(drawn())) == 4 and set(drawn()) < all_ids and drawn() == drawn()


def test_an_unreadable_row_is_named_unless_it_is_left_out(folder: Path, tmp_path: Path) -> None:
    rows = pq.read_table(folder / "train.parquet").to_pylist()
    rows[1]["images"] = [{"bytes": None}]
    train = folder / "mine.parquet"
    pq.write_table(pa.Table.from_pylist(rows), train)
    with pytest.raises(ValueError, match=rf"mine\.parquet, row 1, id {rows[1]['id']}: image 0 is null"):
        load(train, config(train, folder / "validation.parquet"))
    listing = tmp_path / "dropped.json"
    listing.write_text(json.dumps({str(train): [{"id": rows[1]["id"]}]}))
    assert len(load(train, config(train, folder / "validation.parquet", dropped_rows=str(listing)))) == 5
