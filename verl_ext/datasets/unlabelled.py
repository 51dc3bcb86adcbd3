"""veRL's dataset for rows without truth, chosen by `data.custom_cls`."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from verl.utils.dataset.rl_dataset import RLHFDataset

from verl_ext.datasets.truth import file_list, read_truth, sidecar_of


class UnlabelledDataset(RLHFDataset):
    """Rows as `data/schema.py` documents them, completed with the `reward_model` that veRL asks for.

    Its `ground_truth` is None in training: a file named in `data.train_files` never has its truth joined, unless
    `data.supervised` is set, for the control that trains with labels. The rows of validation files get theirs from the
    sidecar by row id. Raises ValueError for rows with a `reward_model` of their own, for a file whose sidecar is needed
    and missing, and for a file that is both trained and validated on.

    `data.instruction`, unless null, follows the question after a space. Images are scaled into `data.min_pixels` ..
    `data.max_pixels` (null: no limit of ours) when veRL reads them.
    """

    def __init__(self, data_files: str | list[str], config: DictConfig, **kwargs: Any) -> None:
        files, train_files = file_list(data_files), file_list(config.train_files)
        self._truth: dict[str, str] | None = None
        if files != train_files or config.get("supervised"):
            for file in files:
                if not sidecar_of(file).is_file():
                    kind = "training" if files == train_files else "validation"
                    raise ValueError(f"{kind} file {file} has no truth: {sidecar_of(file)} is missing")
            self._truth = read_truth(files)
        trained = {Path(file).resolve() for file in train_files}
        for file in file_list(config.val_files):
            if Path(file).resolve() in trained:
                raise ValueError(f"{file} is in data.train_files and in data.val_files: validate on another file")
        super().__init__(data_files=data_files, config=config, **kwargs)
        if "reward_model" in self.dataframe.column_names:
            raise ValueError(f"{', '.join(files)}: a column reward_model would bring truth along; move it to a sidecar")

    def _build_messages(self, example: dict, key: str) -> list[dict]:
        if self.config.instruction is not None:
            *before, question = example[key]
            question = {**question, "content": f"{question['content']} {self.config.instruction}"}
            example = {**example, key: [*before, question]}
        messages = super()._build_messages(example, key)
        limits = {name: self.config[name] for name in ("min_pixels", "max_pixels") if self.config[name] is not None}
        for message in messages:
            if not isinstance(message["content"], str):
                for part in message["content"]:
                    if part["type"] == "image":
                        part.update(limits)
        return messages

    def __getitem__(self, item: int) -> dict[str, Any]:
        """Return veRL's row plus `reward_model`; KeyError when a row is missing in the sidecar that is needed."""
        row = super().__getitem__(item)
        row["reward_model"] = {"style": "rule", "ground_truth": None if self._truth is None else self._truth[row["id"]]}
        return row
