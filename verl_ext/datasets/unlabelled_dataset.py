"""veRL's dataset for rows without truth, chosen by `data.custom_cls`."""

from pathlib import Path
from typing import Any

import datasets
from omegaconf import DictConfig

from verl_ext.config_defaults import DATA_DEFAULTS, fill
from verl_ext.datasets.dropped_rows import dropped_ids
from verl_ext.datasets.ground_truth import check_truth, check_unlabelled, read_metadata, read_truth
from verl_ext.datasets.mixture import mixture
from verl_ext.datasets.pixel_limits import pixel_limits
from verl_ext.datasets.prompt_dataset import AskedDataset
from verl_ext.files import file_list

# Of no use to a trainer, and would travel with each response of a row.
LEFT_BEHIND = ("is_generated", "response")
# Whatever is said to it counts as wrong.
NOT_ASKED = [{"role": "user", "content": "(a question that cannot be shown)"}]


class UnlabelledDataset(AskedDataset):
    """Rows as `data/mmupt_data/row_schema.py` documents them, completed with the `reward_model` that veRL asks for.

    Its `ground_truth` is None in training: a file named in `data.train_files` never has its truth joined, unless
    `data.supervised` is set, for the control that trains with labels. The rows of validation files get theirs from the
    sidecar by row id, and with it `metadata`, what scoring needs beside the answer. Raises ValueError for a training
    file that brings truth along, unless it is supervised, for a file whose sidecar is needed and missing, and for a
    file that is both trained and validated on.

    `data.dropped_rows` is a JSON file that maps a data file to objects with an `id`; null, or no such file, for none.
    Training leaves out the rows that it lists. Validation loses no row: a listed row, and one that is too long, cannot
    be asked. It has NOT_ASKED in place of its prompt and no truth, which makes every response wrong. Of training rows,
    those whose question the model has written (column `synthesis`) make up `data.generated_share`, see `mixture`; null
    takes all rows.
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
        trained = {Path(file).resolve() for file in train_files}
        for file in file_list(config.val_files):
            if Path(file).resolve() in trained:
                raise ValueError(f"{file} is in data.train_files and in data.val_files: validate on another file")
        self._share: float | None = config.generated_share if training else None
        listed = dropped_ids(config.dropped_rows, files)
        self._not_asked = frozenset() if training else listed
        limits, dropped = pixel_limits(config, training), listed if training else frozenset()
        self._training = training
        super().__init__(data_files=data_files, config=config, limits=limits, dropped=dropped, **kwargs)

    def maybe_filter_out_long_prompts(self, dataframe: datasets.Dataset) -> datasets.Dataset:
        """Mix, then leave out what veRL itself leaves out; in validation it is kept and not asked."""
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
            example = {**example, key: NOT_ASKED, self.image_key: []}
        return super()._build_messages(example, key)

    def __getitem__(self, item: int) -> dict[str, Any]:
        """Return veRL's row plus `reward_model`; KeyError when a row is missing in the sidecar that is needed."""
        row = {name: value for name, value in super().__getitem__(item).items() if name not in LEFT_BEHIND}
        if row["agent_name"] is None:
            # veRL takes its default where no row has the key.
            del row["agent_name"]
        truth = None if self._truth is None or row["id"] in self._not_asked else self._truth[row["id"]]
        row["reward_model"] = {"style": "rule", "ground_truth": truth}
        if self._metadata is not None:
            row["reward_model"]["metadata"] = self._metadata.get(row["id"])
        return row
