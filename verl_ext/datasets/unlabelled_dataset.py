"""veRL's dataset for rows without ground truth, selected by `data.custom_cls`."""

from typing import Any

import datasets
from omegaconf import DictConfig

from verl_ext.config_defaults import DATA_DEFAULTS, fill
from verl_ext.datasets.dropped_rows import dropped_ids
from verl_ext.datasets.ground_truth import check_held_out, check_truth, check_unlabelled, read_metadata, read_truth
from verl_ext.datasets.mixture import mixture
from verl_ext.datasets.pixel_limits import pixel_limits
from verl_ext.datasets.prompt_dataset import PromptDataset
from verl_ext.files import file_list

# Columns that no trainer needs, and that would be sent with each response.
DROPPED_COLUMNS = ("is_generated", "response")
# Stands in for a prompt that cannot be shown; every response to it counts as wrong.
SKIPPED_PROMPT = [{"role": "user", "content": "(a question that cannot be shown)"}]


class UnlabelledDataset(PromptDataset):
    """Rows in the form of `data/mmupt_data/row_schema.py`, with the `reward_model` that veRL requires.

    In training, its `ground_truth` is None unless `data.supervised` is set, as in the control that trains with labels.
    Validation rows get their ground truth, and the `metadata` that scoring needs, from the file's sidecar by row id.

    Training leaves out the rows that `data.dropped_rows` lists, see `dropped_ids`. Validation keeps every row: listed
    and overlong rows get SKIPPED_PROMPT and no ground truth, so every response to them is wrong. Questions that a model
    wrote (column `synthesis`) make up `data.generated_share` of the training rows, see `mixture`; null takes all rows.

    Raises:
        ValueError: an unsupervised training file contains ground truth, a needed sidecar is missing, or a file is used
            for both training and validation.
    """

    def __init__(self, data_files: str | list[str], config: DictConfig, **kwargs: Any) -> None:
        fill(config, DATA_DEFAULTS)
        files, train_files = file_list(data_files), file_list(config.train_files)
        training = files == train_files
        self._truth: dict[str, str] | None = None
        if training and not config.get("supervised"):
            for file in files:
                check_unlabelled(file)
        else:
            for file in files:
                check_truth(file)
            self._truth = read_truth(files)
        self._metadata = None if training else read_metadata(files)
        check_held_out(train_files, file_list(config.val_files))
        self._share: float | None = config.generated_share if training else None
        listed = dropped_ids(config.dropped_rows, files)
        self._not_asked = frozenset() if training else listed
        limits, dropped = pixel_limits(config, training), listed if training else frozenset()
        self._training = training
        super().__init__(data_files=data_files, config=config, limits=limits, dropped=dropped, **kwargs)

    def maybe_filter_out_long_prompts(self, dataframe: datasets.Dataset) -> datasets.Dataset:
        """Mix the rows, then drop those that are too long; validation keeps them but does not show them."""
        if self._share is not None:
            chosen = mixture(list(dataframe["is_generated"]), self._share, self.config.seed)
            dataframe = dataframe.select(chosen)
        kept = super().maybe_filter_out_long_prompts(dataframe)
        if self._training:
            return kept
        self._not_asked |= {*dataframe["id"]} - {*kept["id"]}
        return dataframe

    def _build_messages(self, example: dict, key: str) -> list[dict]:
        if example["id"] in self._not_asked:
            example = {**example, key: SKIPPED_PROMPT, self.image_key: []}
        return super()._build_messages(example, key)

    def __getitem__(self, item: int) -> dict[str, Any]:
        """Return veRL's row plus `reward_model`; KeyError if a needed sidecar lacks the row."""
        row = {name: value for name, value in super().__getitem__(item).items() if name not in DROPPED_COLUMNS}
        if row["agent_name"] is None:
            # veRL uses its default if no row has the key.
            del row["agent_name"]
        truth = None if self._truth is None or row["id"] in self._not_asked else self._truth[row["id"]]
        row["reward_model"] = {"style": "rule", "ground_truth": truth}
        if self._metadata is not None:
            row["reward_model"]["metadata"] = self._metadata.get(row["id"])
        return row
