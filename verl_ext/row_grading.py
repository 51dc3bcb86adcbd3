"""Checks before training that rows can be graded: their ground truths are known, and a judge sees all of a row.

`verl_ext.datasets.ground_truth` defines ground truths and where a file has them. Imports veRL only to inspect datasets
that veRL has loaded.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_ext.config_defaults import DATASET, uses
from verl_ext.datasets.ground_truth import check_truth, check_unlabelled, column_of, problem_of_truths
from verl_ext.files import file_list
from verl_ext.import_check import REWARD_FUNCTION, REWARD_MANAGER_KEY
from verl_ext.rewards.group_reward import REWARDS
from verl_ext.rewards.judgements import ONLY_IMAGES

select = OmegaConf.select

# Media that a judge does not see: the keys that name their columns in veRL's own dataset, with veRL's defaults.
UNJUDGED_MEDIA = {"video_key": "videos", "audio_key": "audios"}


def problems_of_local_files(config: DictConfig) -> Iterator[str]:
    """Yield the problems of data files on this machine."""
    if uses(config, "data.custom_cls", DATASET):
        yield from _file_problems(config)
    else:
        yield from _truth_problems(config)
        yield from _media_problems(config)


def problems_of_rows(config: DictConfig, datasets: Mapping[str, Any]) -> Iterator[str]:
    """Yield problems of the ground truths that `problems_of_local_files` cannot read: of remote files and custom
    datasets.

    Args:
        datasets: veRL's dataset for each key of files, such as `data.val_files`.
    """
    for key, fix in _graded_by_rule(config).items():
        files = _files_of_verl(config, key)
        if files and all(map(_is_read_here, files)):
            continue
        rows = datasets[key]
        if _checks_its_rows(rows):
            continue
        if problem := problem_of_truths(_reward_models(rows), type(rows).__name__):
            yield f"{key}: {problem}: {fix}"


def validates_first(config: DictConfig) -> bool:
    """Whether a run begins with a validation."""
    return bool(select(config, "trainer.val_before_train", default=True))


def _file_problems(config: DictConfig) -> Iterator[str]:
    """Yield problems of columns, ids and ground truths in the files that this plugin's dataset reads."""
    files = dict.fromkeys(file_list(config.data.val_files), check_truth)
    check = check_truth if select(config, "data.supervised") else check_unlabelled
    for file, problem_of in (files | dict.fromkeys(file_list(config.data.train_files), check)).items():
        try:
            problem_of(file)
        except (ValueError, OSError) as error:
            yield str(error)


def _truth_problems(config: DictConfig) -> Iterator[str]:
    """Yield problems of the ground truths that this plugin needs of local files that veRL's own dataset reads."""
    for key, fix in _graded_by_rule(config).items():
        for file in filter(_is_read_here, _files_of_verl(config, key)):
            try:
                problem = problem_of_truths(column_of(file, "reward_model"), file)
            except ValueError as error:
                yield f"{key}: {error}"
            else:
                if problem:
                    yield f"{key}: {problem}: {fix}"


def _media_problems(config: DictConfig) -> Iterator[str]:
    """Yield local training files with videos or audio if a judge scores the responses, as a judge sees only images."""
    name = select(config, REWARD_MANAGER_KEY)
    if name not in REWARDS or not REWARDS[name].needs_judgements:
        return
    key = "data.train_files"
    for file in filter(_is_read_here, _files_of_verl(config, key)):
        for column in (config.data.get(key_of, default) for key_of, default in UNJUDGED_MEDIA.items()):
            try:
                found = column_of(file, column)
            except ValueError as error:
                yield f"{key}: {error}"
                break
            if any(found):
                rows = f"{sum(map(bool, found))} of {len(found)} rows"
                yield f"{key}: {file} has {column} in {rows}: {ONLY_IMAGES}"


def _checks_its_rows(rows: Any) -> bool:
    """Whether a dataset is an `UnlabelledDataset`, which has no ground truth for rows that it cannot show."""
    # Imported lazily: it imports veRL, see `_reward_models`.
    from verl_ext.datasets.unlabelled_dataset import UnlabelledDataset

    return isinstance(rows, UnlabelledDataset)


def _reward_models(rows: Any) -> list[Any]:
    """The `reward_model` of each row of a dataset that veRL has loaded; None for rows without it."""
    # Imported lazily: only callers with such a dataset, who have imported veRL already, get here.
    from verl.utils.dataset.rl_dataset import RLHFDataset

    if type(rows).__getitem__ is RLHFDataset.__getitem__:
        # It returns the column unchanged, but also decodes the images of a row.
        frame = rows.dataframe
        return list(frame["reward_model"]) if "reward_model" in frame.column_names else [None] * len(frame)
    print(f"{type(rows).__name__} has its own __getitem__: reading its {len(rows)} rows once for their ground truths")
    return [rows[number].get("reward_model") for number in range(len(rows))]


def _graded_by_rule(config: DictConfig) -> dict[str, str]:
    """The keys of files whose rows this plugin grades by their own ground truth, each with the fix if it cannot."""
    # `UnlabelledDataset` checks its rows itself.
    if select(config, REWARD_MANAGER_KEY) not in REWARDS or uses(config, "data.custom_cls", DATASET):
        return {}
    validates = validates_first(config) or (select(config, "trainer.test_freq") or 0) > 0
    graded = {}
    if validates and not select(config, f"{REWARD_FUNCTION}.path"):
        graded["data.val_files"] = (
            f"set {REWARD_FUNCTION} to a function that grades the responses, or validate nothing "
            "(trainer.val_before_train=False trainer.test_freq=-1)"
        )
    if select(config, "data.supervised"):
        graded["data.train_files"] = "each row needs a text or a number there under data.supervised=True"
    return graded


def _files_of_verl(config: DictConfig, key: str) -> list[str]:
    """The files of a key if veRL's own dataset reads them, else none."""
    return [] if select(config, "data.custom_cls.path") else file_list(select(config, key))


def _is_read_here(file: str) -> bool:
    # veRL downloads remote files, and refuses other formats.
    return Path(file).is_file() and file.endswith((".parquet", ".json", ".jsonl"))
