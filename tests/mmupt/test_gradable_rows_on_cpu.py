"""Ground truths that cannot be graded are refused before Ray starts or a model is loaded, in veRL's own example."""

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from own_configuration import SMALL, TWO_KEYS, composed, forced, write_rows
from transformers import AutoProcessor
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.config import validate_config
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.utils.fs import get_local_temp_path

from mmupt_data.figure_task import write_figures
from verl_ext.config_checks import check_before_ray, check_config, check_rows
from verl_ext.datasets.unlabelled_dataset import UnlabelledDataset
from verl_ext.row_grading import problems_of_local_files

NO_VALIDATION = ("trainer.val_before_train=False", "trainer.test_freq=-1")


def test_files_that_the_dataset_would_refuse_are_refused_before_ray(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.parquet", "train", 2)
    pq.write_table(pa.table({"prompt": ["how many ?"]}), tmp_path / "no_truth.parquet")
    keys = {
        "data.train_files": str(tmp_path / "train.parquet"),
        "data.val_files": [str(tmp_path / "missing.parquet"), str(tmp_path / "no_truth.parquet")],
        "data.custom_cls.path": "pkg://verl_ext.datasets.unlabelled_dataset",
        "data.custom_cls.name": "UnlabelledDataset",
    }
    config = composed(*TWO_KEYS, *forced(keys))
    check_config(config)
    with pytest.raises(ValueError) as refused:
        validate_config(config, use_reference_policy=True, use_critic=False)
    for part in (
        "3 settings must change",
        "train.parquet: a label-free",
        "reward_model",
        "missing.parquet is missing",
        "no_truth.parquet has no truth: ",
    ):
        assert part in str(refused.value), part


# The column `reward_model` of a file, and the problem with it.
GROUND_TRUTHS: list[tuple[list[Any] | None, str | None]] = [
    # The format of veRL's examples/data_preprocess for search (Search-R1).
    (
        [{"ground_truth": {"target": ["4", "four"]}, "style": "rule"}],
        "1 of 1 rows, the first of them row 0, whose reward_model is {'ground_truth': {'target': ['4', 'four']}",
    ),
    ([{"ground_truth": ["4", "four"]}], "1 of 1 rows"),
    ([{"ground_truth": "4"}, {"ground_truth": None}, None], "2 of 3 rows, the first of them row 1"),
    ([{"style": "model"}], "whose reward_model is {'style': 'model'}"),
    (["4"], "whose reward_model is 4"),
    (None, "whose reward_model is None"),
    ([{"ground_truth": 4.5}], None),
]
NOT_IN_JSON: list[tuple[list[Any] | None, str | None]] = [
    ([{"ground_truth": b"4"}], "1 of 1 rows"),
    ([{"ground_truth": Decimal("4.5")}], None),
]


@pytest.mark.parametrize(
    ("suffix", "reward_models", "problem"),
    [(suffix, *case) for suffix in (".parquet", ".json", ".jsonl") for case in GROUND_TRUTHS]
    + [(".parquet", *case) for case in NOT_IN_JSON],
)
def test_validation_files_whose_ground_truth_matches_no_response_are_refused_before_ray(
    reward_models: list[Any] | None, problem: str | None, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    prompts = [[{"role": "user", "content": "how many ?"}]] * len(reward_models or [1])
    table = pa.table({"prompt": prompts} | ({"reward_model": reward_models} if reward_models else {}))
    file = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, file)
    else:
        lines = [*map(json.dumps, table.to_pylist())]
        file.write_text(f"[{', '.join(lines)}]" if suffix == ".json" else "\n".join(lines))
    keys = forced({"data.train_files": str(file), "data.val_files": [str(file)]})
    if problem is None:
        check_before_ray(composed(*TWO_KEYS, *keys))
        return
    with pytest.raises(ValueError, match=rf"^data\.val_files: .*{re.escape(problem)}.*: set reward\.custom_reward"):
        check_before_ray(composed(*TWO_KEYS, *keys))
    function = {"reward.custom_reward_function.path": __file__, "reward.custom_reward_function.name": "forced"}
    for ungraded in (forced(function), NO_VALIDATION, ("reward.reward_manager.name=naive",)):
        config = composed(*TWO_KEYS, *keys, *ungraded)
        assert not list(problems_of_local_files(config))


def test_a_validation_file_that_is_not_parquet_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    file.write_text("PAR1 no longer")
    keys = forced({"data.train_files": str(file), "data.val_files": str(file)})
    with pytest.raises(ValueError, match=rf"^data\.val_files: {file} is not a parquet file: "):
        check_before_ray(composed(*TWO_KEYS, *keys))


OWN_DATASET = """
from torch.utils.data import Dataset
from verl.utils.dataset.rl_dataset import RLHFDataset

class OwnMessages(RLHFDataset):
    def _build_messages(self, example, key):
        raise AssertionError("a whole row is read")

class Rows(Dataset):
    truths = {"text": ["4", "5"], "list": ["4", ["4", "four"]]}

    def __init__(self, data_files, **others):
        self.rows = [{"reward_model": {"ground_truth": truth}} for truth in self.truths[data_files]]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, item):
        return self.rows[item]
"""
SUPERVISED = ("reward.reward_manager.name=ground_truth", "+data.supervised=True")


def make_datasets(*overrides: str) -> None:
    """Check the configuration and make the datasets like veRL's trainer before it starts a worker."""
    trainer: Any = object.__new__(PPOTrainerSync)
    trainer.config = composed(*TWO_KEYS, "data.filter_overlong_prompts=False", *overrides)
    trainer.tokenizer = trainer.processor = None
    trainer.trainer_mode, trainer.parameter_sync_step = "sync", 1
    check_before_ray(trainer.config)
    trainer._init_dataloader()


def test_ground_truths_of_the_users_own_dataset_class_are_checked_before_a_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "rows.py").write_text(OWN_DATASET)
    own = (f"data.custom_cls.path={tmp_path}/rows.py", "data.custom_cls.name=Rows", "data.train_files=text")
    make_datasets(*own, "data.val_files=text")
    problem = "Rows has no reward_model.ground_truth that is text or a number in 1 of 2 rows, the first of them row 1"
    with pytest.raises(ValueError, match=rf"^data\.val_files: {problem}.*'four'.*: set reward\.custom_reward_function"):
        make_datasets(*own, "data.val_files=list", "trainer.val_before_train=False")
    with pytest.raises(ValueError, match=rf"^data\.train_files: {problem}.*: each row needs a text or a number"):
        make_datasets(*own, *SUPERVISED, *NO_VALIDATION, "data.val_files=text", "data.train_files=list")
    # Without validation, or with another reward manager, nothing is graded with them.
    plain = (
        "reward.reward_manager.name=naive",
        "actor_rollout_ref.rollout.agent.default_agent_loop=shared_prompt_agent",
    )
    for ungraded in (NO_VALIDATION, plain):
        make_datasets(*own, "data.val_files=list", *ungraded)


def test_a_subclass_of_our_dataset_may_have_validation_rows_that_are_not_shown(tmp_path: Path) -> None:
    class OwnRows(UnlabelledDataset):
        """A user's dataset."""

    write_figures(tmp_path, train=2, validation=2, test=1)
    processor = AutoProcessor.from_pretrained(SMALL["actor_rollout_ref.model.path"])
    file, listing = str(tmp_path / "validation.parquet"), tmp_path / "dropped.json"
    hidden = pq.read_table(file)["id"][1].as_py()
    listing.write_text(json.dumps({file: [{"id": hidden}]}))
    keys = {
        "data.custom_cls.path": "rows.py",
        "data.custom_cls.name": "OwnRows",
        "data.train_files": str(tmp_path / "train.parquet"),
        "data.val_files": file,
        "data.cache_dir": str(tmp_path),
        "data.dropped_rows": str(listing),
    }
    config = composed(*TWO_KEYS, *forced(keys))
    rows = OwnRows(file, config.data, tokenizer=processor.tokenizer, processor=processor)
    assert rows[1]["reward_model"]["ground_truth"] is None
    check_rows(config, {"data.val_files": rows})


def test_only_the_ground_truths_of_a_dataset_derived_from_verls_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    (tmp_path / "rows.py").write_text(OWN_DATASET)
    write_rows(file := tmp_path / "train.parquet", "train", 2)
    prompt = [{"role": "user", "content": "how many ?"}]
    pq.write_table(pa.table({"prompt": [prompt]}), no_truth := tmp_path / "no_truth.parquet")
    own = (f"data.custom_cls.path={tmp_path}/rows.py", "data.custom_cls.name=OwnMessages", *SUPERVISED)
    files = {"data.train_files": str(file), "data.val_files": str(file)}
    make_datasets(*own, *forced(files))
    for key in files:
        with pytest.raises(ValueError, match=rf"^{key}: OwnMessages has no .* in 1 of 1 rows"):
            make_datasets(*own, *forced(files | {key: str(no_truth)}))


def test_ground_truths_of_remote_files_are_checked_after_verl_has_copied_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    write_rows(file := tmp_path / "train.parquet", "train", 2)
    remote = "hdfs://host/rows.parquet"
    # veRL uses an existing copy.
    copy = Path(get_local_temp_path(remote, str(tmp_path)))
    table = pa.table(
        {"prompt": [[{"role": "user", "content": "how many ?"}]], "reward_model": [{"ground_truth": ["4"]}]}
    )
    pq.write_table(table, copy)
    files = forced({"data.train_files": str(file), "data.val_files": [remote], "data.cache_dir": str(tmp_path)})
    with pytest.raises(
        ValueError, match=r"^data\.val_files: RLHFDataset has no .* in 1 of 1 rows.*: set reward\.custom"
    ):
        make_datasets(*files)
    # Local files are read before Ray starts, so their rows are not read again.
    monkeypatch.setattr(RLHFDataset, "__getitem__", Mock(side_effect=AssertionError))
    make_datasets(*files, *forced({"data.val_files": str(file)}))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_rows_with_videos_are_refused_before_ray_for_a_judge(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    message = {"role": "user", "content": "<video>how many ?"}
    clips = [
        {"prompt": [message], "clips": ["clip.mp4"], "videos": []},
        {"prompt": [message], "clips": [], "videos": []},
    ]
    file = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(clips), file)
    else:
        file.write_text("\n".join(map(json.dumps, clips)))
    judge = ("reward.reward_manager.name=self_judge", *NO_VALIDATION)
    config = composed(*TWO_KEYS, *judge, *forced({"data.train_files": str(file)}))
    assert not list(problems_of_local_files(config))
    config.data.video_key = "clips"
    (problem,) = problems_of_local_files(config)
    assert problem.startswith(f"data.train_files: {file} has clips in 1 of 2 rows: a judge sees texts and images only")
    config.reward.reward_manager.name = "majority_vote"
    assert not list(problems_of_local_files(config))
