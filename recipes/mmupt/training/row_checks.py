"""Checks the rows of a recipe's files before anything expensive starts.

Data sets from `mmupt_data` were checked when they were written; other files are checked in full here. Prompt lengths
depend on the recipe and are always computed here, from image sizes without scaling any image.
"""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from mmupt.compose import RecipeError
from mmupt.console import tell
from mmupt.evaluation.benchmark_scores import check_scorable
from mmupt.evaluation.messages import prompt_tokens
from mmupt.evaluation.prompt_processor import load_processor
from mmupt.evaluation.response_files import Response
from mmupt.evaluation.verdicts import questions_of, verdicts_of
from mmupt.reports.leakage_report import check_overlap
from mmupt_data.row_problems import HARMLESS, UNANSWERABLE, Duplicates, Problem, place, problems_of
from mmupt_data.row_schema import NO_QUESTION, SCHEMA_VERSION, Row
from mmupt_data.writer import is_unchanged, read_manifest
from verl_ext.control_text import control_texts, control_tokens
from verl_ext.counts import pluralize
from verl_ext.datasets.ground_truth import check_truth, check_unlabelled
from verl_ext.datasets.parquet_reader import MalformedRow, in_batches, read_ids, read_rows, require_prompt
from verl_ext.datasets.pixel_limits import accepted_size, pixel_limits, token_side
from verl_ext.files import file_list, write_json
from verl_ext.images import stored_size
from verl_ext.rewards.reward_settings import read_settings

COLUMNS = ("id", "prompt", "images", "question_type", "choices", "provenance")
# In `reward.custom_reward_function` of base.yaml.
VALIDATION_REWARD = "pkg://mmupt.evaluation.validation_reward"
# Every extraction finds an answer in it.
ANSWER = "<answer>\\boxed{1}</answer> The answer is 1."


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: its index in its file, its id and its problems.

    `files` are its image files if the data set was made from a folder.
    """

    row: int
    id: str
    problems: tuple[Problem, ...]
    files: tuple[str, ...] = ()


def check_rows(config: DictConfig) -> None:
    """Check all files of a recipe, and drop bad training rows or stop, depending on `data.bad_rows`.

    Evaluation drops no rows: in validation and evaluation files, rows that the model cannot be asked count as wrong.
    The file `data.dropped_rows`, which `verl_ext.datasets.unlabelled_dataset` reads, lists the dropped training rows
    and the validation rows that count as wrong; the console summarizes them.

    Raises:
        RecipeError: a file cannot be read, or lacks prompts or needed ground truth; a training file has ground truth
            without `data.supervised`; two rows of one key share an id; validation or evaluation cannot be scored; no
            row of a file can be used; a row is bad and `data.bad_rows` is `stop`; or an evaluation row cannot be read.
    """
    try:
        _check_rows(config)
    except ValueError as error:
        raise RecipeError(str(error)) from error


def _check_rows(config: DictConfig) -> None:
    dropped: dict[str, list[BadRow]] = {}
    wrong: dict[str, list[BadRow]] = {}
    for training, key in ((True, "train_files"), (False, "val_files")):
        files = file_list(config.data[key])
        for file in files:
            _check_file(file, unlabelled=training and not config.data.supervised)
        _check_ids(files)
        lengths = None if config.data.filter_overlong_prompts else PromptLengths(config, training)
        for file in files:
            bad = _find_bad_rows(file, lengths, training)
            if len(bad) == len(read_ids(file)):
                raise RecipeError(f"data.{key}: {file}: no row can be used; the first: {_describe(bad[0])}")
            if bad:
                (dropped if training else wrong)[file] = bad
            if lengths and lengths.escaped:
                count, first = len(lengths.escaped), lengths.escaped[0]
                rows = pluralize(count, "row has", "rows have")
                tell(f"{file}: {rows} control text, which is shown as characters; the first: {first}")
                lengths.escaped.clear()
    if config.reward.custom_reward_function.path == VALIDATION_REWARD:
        _check_graded(file_list(config.data.val_files), config)
    evaluated = file_list(config.mmupt.evaluation_files)
    for file in evaluated:
        _check_file(file, unlabelled=False)
    _check_ids(evaluated)
    _check_scorable(evaluated, config)
    for file in evaluated:
        if bad := _find_bad_rows(file, lengths=None, training=False):
            wrong.setdefault(file, bad)
    report_bad_rows(dropped, "left out", config.data.bad_rows)
    report_bad_rows(wrong, "not asked and counted as wrong", config.data.bad_rows)
    dropped |= {file: bad for file, bad in wrong.items() if file in file_list(config.data.val_files)}
    listing = {file: [asdict(row) for row in bad] for file, bad in dropped.items()}
    write_json(Path(config.data.dropped_rows), listing)


def dropped_rows(config: DictConfig) -> dict[str, list[int]]:
    """Return the indices of the rows of each training file that `check_rows` has dropped."""
    listing = json.loads(Path(config.data.dropped_rows).read_text())
    return {file: [bad["row"] for bad in listing.get(file, [])] for file in file_list(config.data.train_files)}


def check_leakage(config: DictConfig) -> None:
    """Refuse a recipe whose validation or evaluation files overlap with its training files.

    With `mmupt.test_time_training`, evaluation files that are trained on are exempt.

    Raises:
        RecipeError: more than `mmupt.leakage.allowed_pairs` pairs of rows overlap (names the first pairs and the
            report); or `mmupt.test_time_training` is set with labels, or with no evaluation file to train on.
    """
    if config.mmupt.test_time_training and config.data.supervised:
        raise RecipeError("mmupt.test_time_training is training without labels: set data.supervised=False")
    settings = config.mmupt.leakage
    if settings.allowed_pairs is None:
        return
    trained = file_list(config.data.train_files)
    evaluated = dict.fromkeys([*file_list(config.data.val_files), *file_list(config.mmupt.evaluation_files)])
    if config.mmupt.test_time_training:
        if not (shared := [file for file in trained if file in evaluated]):
            raise RecipeError(
                "mmupt.test_time_training trains on evaluation files, but data.train_files has none of them: set it "
                "to mmupt.evaluation_files, or mmupt.test_time_training=False"
            )
        tell(f"Test-time training on {', '.join(shared)}, without labels")
        evaluated = {file: None for file in evaluated if file not in trained}
        if not evaluated:
            return
    train, held_out = ([Path(file) for file in files] for files in (trained, evaluated))
    folder = Path(config.mmupt.run_folder) / "leakage"
    try:
        check_overlap(train, held_out, settings.images, settings.allowed_pairs, folder)
    except ValueError as error:
        raise RecipeError(
            f"{error}. Train on other rows, or accept it: mmupt.leakage.allowed_pairs=N (null: do not check)"
        ) from error


def report_bad_rows(rows_by_file: Mapping[str, Sequence[BadRow]], outcome: str, policy: str) -> None:
    """Print the number of bad rows per file and the first row with each kind of problem; RecipeError under `stop`."""
    for file, bad in rows_by_file.items():
        kinds = {problem.kind for row in bad for problem in row.problems}
        firsts = [next(row for row in bad if kind in {p.kind for p in row.problems}) for kind in sorted(kinds)]
        examples = "; ".join(dict.fromkeys(map(_describe, firsts)))
        if policy == "stop":
            raise RecipeError(
                f"{file}: {pluralize(len(bad), 'row')} cannot be used: {examples}. Fix them, or accept that "
                f"they are {outcome}: data.bad_rows=drop"
            )
        tell(f"{file}: {pluralize(len(bad), 'row')} {outcome}: {examples}")


def _describe(bad: BadRow) -> str:
    problems = ", ".join(f"{problem.kind} ({problem.detail})" for problem in bad.problems)
    return f"{place(bad.row, bad.id, bad.files)}: {problems}"


def _check_file(file: str, unlabelled: bool) -> None:
    require_prompt(file)
    (check_unlabelled if unlabelled else check_truth)(file)


def _check_ids(files: Sequence[str]) -> None:
    first_places: dict[str, str] = {}
    for file in files:
        for row, id_ in enumerate(read_ids(file)):
            place = f"{file}, row {row}"
            if (first := first_places.setdefault(id_, place)) != place:
                raise RecipeError(f"{place}: {first} has the id {id_!r}, too; ids must be unique")


def _check_scorable(files: Sequence[str], config: DictConfig) -> None:
    answers = read_settings(config.reward.reward_kwargs)
    try:
        check_scorable(questions_of({"data": files}), answers.extraction, answers.comparison)
    except ValueError as error:
        raise RecipeError(f"mmupt.evaluation_files: {error}") from error


def _check_graded(files: Sequence[str], config: DictConfig) -> None:
    """Grade a response to each validation question, so that errors show now instead of in the first validation."""
    answers = read_settings(config.reward.reward_kwargs)
    try:
        questions = questions_of({"data": files})
        responses = [Response(id_, "greedy", 0, ANSWER) for id_ in questions]
        verdicts_of(responses, questions, answers.extraction, answers.comparison)
    except ValueError as error:
        raise RecipeError(f"data.val_files: {error}") from error


def _find_bad_rows(file: str, lengths: "PromptLengths | None", training: bool) -> list[BadRow]:
    """Return `bad_rows`; RecipeError for an evaluation row that cannot be read."""
    bad = bad_rows(file, lengths, training)
    if unread := [row for row in bad if not training and any(problem.kind == "row" for problem in row.problems)]:
        raise RecipeError(
            f"{file}: {pluralize(len(unread), 'row')} cannot be read, but an evaluation needs every row; the first: "
            f"{_describe(unread[0])}"
        )
    return bad


def bad_rows(file: str, lengths: "PromptLengths | None", training: bool) -> list[BadRow]:
    """The rows of a file that cannot be used, in order.

    Args:
        file: a parquet file from any source; prompts may have several messages.
        lengths: checks the lengths of prompts; None leaves that to veRL.
        training: whether the rows are trained on. Otherwise a row is bad only if the model cannot be asked.

    Raises:
        ValueError: the file is damaged.
    """
    path = Path(file)
    manifest = read_manifest(path.parent)
    # Files of other versions were checked with other rules.
    checked = manifest is not None and manifest.get("schema") == SCHEMA_VERSION and is_unchanged(path, manifest)
    # A checked evaluation file keeps rows with problems, which the manifest lists.
    kept = {
        row["id"]: [Problem(**problem) for problem in row["problems"]]
        for row in ((manifest or {}).get("kept", []) if checked else [])
    }
    bad = []
    duplicates = Duplicates()
    # Images of checked rows are not decoded again.
    check = (lambda row: []) if checked else _problems
    start = 0
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for batch in in_batches(read_rows(file, COLUMNS)):
            for index, (row, problems) in enumerate(zip(batch, threads.map(check, batch), strict=True), start):
                if isinstance(row, MalformedRow):
                    bad.append(BadRow(index, row.id, (Problem("row", row.problem),)))
                    continue
                problems = [*problems, *kept.get(row["id"], ())]
                if training:
                    problems = [problem for problem in problems if problem.kind not in HARMLESS]
                    if not problems and row["question_type"] == NO_QUESTION:
                        problems.append(Problem("no question", "the image is for synthesis"))
                    if not (problems or checked):
                        problems += duplicates.check(_as_row(row))
                else:
                    problems = [problem for problem in problems if problem.kind in UNANSWERABLE]
                if lengths is not None and not problems:
                    problems += lengths.check(row)
                if problems:
                    files = (row["provenance"] or {}).get("files") or ()
                    bad.append(BadRow(index, row["id"], tuple(problems), tuple(files)))
            start += len(batch)
    return bad


def _problems(row: Mapping[str, Any] | MalformedRow) -> list[Problem]:
    return [] if isinstance(row, MalformedRow) else problems_of(_as_row(row))


def _as_row(row: Mapping[str, Any]) -> Row:
    choices = None if row["choices"] is None else tuple(row["choices"])
    question = "\n".join(message["content"] for message in row["prompt"])
    images = tuple(image["bytes"] for image in row["images"])
    return Row(row["id"], "", question, images, row["question_type"], None, choices)


# Image processors of transformers whose tokens `verl_ext.datasets.pixel_limits` can count: Qwen2-VL to Qwen3.5, and
# GLM-4V. Variants have the same beginning, such as Qwen2VLImageProcessorPil.
COUNTED = ("Qwen2VLImageProcessor", "Glm4vImageProcessor")


class PromptLengths:
    """Counts the tokens that veRL's dataset and the model's processor make of each prompt.

    Raises RecipeError for a model whose image processor is not one of `COUNTED`.
    """

    def __init__(self, config: DictConfig, training: bool) -> None:
        # Messages about checked rows with control text.
        self.escaped: list[str] = []
        self._training = training
        self._limit = config.data.max_prompt_length
        self._instruction = config.data.instruction
        self._limits = pixel_limits(config.data, training)
        model = config.actor_rollout_ref.model
        self._processor = load_processor(
            model.path, config.data.apply_chat_template_kwargs, trust_remote_code=model.trust_remote_code
        )
        images = self._processor.image_processor
        if images is not None and not type(images).__name__.startswith(COUNTED):
            raise RecipeError(
                f"{model.path}: prompt lengths cannot be checked for a model with {type(images).__name__}: set "
                "data.filter_overlong_prompts=True, so that veRL checks them"
            )

    def check(self, row: dict[str, Any]) -> list[Problem]:
        """Check the length of a row's prompt, and its images.

        Any image is a problem for a model without a vision tower. In training, images that scaling accepts only with
        margins are a problem, and so are images with a side shorter than a visual token, as they show little.
        """
        text = "\n".join(message["content"] for message in row["prompt"])
        if control := control_texts(text, control_tokens(self._processor.tokenizer)):
            self.escaped.append(f"id {row['id']}: {', '.join(control)}")
        images = self._processor.image_processor
        if images is None and row["images"]:
            count = pluralize(len(row["images"]), "image")
            return [Problem("no vision tower", f"{count}, and the model reads only text")]
        if self._training:
            for index, image in enumerate(row["images"]):
                size = stored_size(image["bytes"])
                if min(size) < (side := token_side(images)):
                    detail = f"image {index} has {size[0]} x {size[1]} px, under the {side} px of a visual token"
                    return [Problem("small image", detail)]
                if accepted_size(*size, images, self._limits) != size:
                    detail = f"image {index} has {size[0]} x {size[1]} px, which the model's scaling does not accept"
                    return [Problem("extreme aspect ratio", detail)]
        text_tokens, image_tokens = prompt_tokens(row, self._processor, self._instruction, self._limits)
        tokens, visual = text_tokens + sum(image_tokens), sum(image_tokens)
        if tokens <= self._limit:
            return []
        return [Problem("long prompt", f"{tokens} tokens, {visual} of them images, over {self._limit}")]
