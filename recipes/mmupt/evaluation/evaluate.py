"""Generate a model's responses to benchmarks, and score them.

    mmupt eval model=Qwen/Qwen2.5-VL-7B-Instruct benchmarks=[mathvista,wemath] preset=greedy

`evaluation/config/evaluation.yaml` documents every key. After an interruption, the same command continues with the
questions that have no response. Prompts are built as in veRL, so the model sees the same prompts as in training.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from omegaconf import DictConfig, OmegaConf

from mmupt.benchmarks import BENCHMARKS, read_questions
from mmupt.compose import compose_entry, require_values
from mmupt.console import Head, Phase, emit, log_to, show_result, shown_path, tell
from mmupt.datasets import data_set
from mmupt.evaluation.benchmark_scores import BenchmarkScores, check_scorable, render
from mmupt.evaluation.generation_settings import GenerationSettings
from mmupt.evaluation.judge_client import Judge
from mmupt.evaluation.paper_results import PAPER
from mmupt.evaluation.report_results import read_scores, write_results
from mmupt.evaluation.response_cache import answer_missing
from mmupt.evaluation.response_files import read_responses
from mmupt.evaluation.resumable_file import ResumableFile
from mmupt.evaluation.score_files import score_file
from mmupt.evaluation.verdicts import questions_of
from mmupt.hardware import engine_keys
from mmupt.runtime.environment import use_folder
from mmupt.runtime.export import model_folder
from mmupt.runtime.run_lock import RUN_FOLDER_VARIABLE, exclusive_run
from mmupt_data.prepare import FOLDER
from mmupt_data.writer import read_manifest
from verl_ext.answers import Comparison
from verl_ext.counts import pluralize
from verl_ext.datasets.ground_truth import check_truth
from verl_ext.datasets.parquet_reader import require_prompt, whole_rows
from verl_ext.files import file_list

CONFIG_FOLDER = Path(__file__).parent / "config"
# Questions that could not be asked to name.
NAMED = 10


class EvaluationError(Exception):
    """The evaluation cannot run; the message names the key or file, and the fix."""


@dataclass(frozen=True)
class QuestionSet:
    """Files with questions, and the file for their responses.

    `official` is the number of questions in the whole benchmark; None for the user's own files.
    """

    name: str
    files: tuple[Path, ...]
    output: Path
    official: int | None = None

    def questions(self) -> int:
        """The number of questions in the files."""
        return sum(pq.read_metadata(file).num_rows for file in self.files)


def load_evaluation_config(overrides: Sequence[str]) -> DictConfig:
    """Compose the config; EvaluationError for an unknown key or any other error of Hydra."""
    return compose_entry(CONFIG_FOLDER, "evaluation", overrides, EvaluationError)


def question_sets(config: DictConfig, output: Path) -> list[QuestionSet]:
    """The question sets of a config, benchmarks first. Prepares benchmarks that are missing.

    Raises:
        EvaluationError: there are no questions, two sets share a name, a benchmark is unknown or cannot be prepared, a
            file or its ground truth is missing, or a benchmark is incomplete and `allow_partial` is not set.
    """
    titles = [benchmark.replace("/", "_") for benchmark in config.benchmarks]
    names = Counter([*titles, *map(str, config.files or ())])
    if bad := [name for name, times in names.items() if times > 1 or Path(name).name != name]:
        raise EvaluationError(f"benchmarks and files: {bad[0]!r} names a file of responses: give it once, without /")
    sets = []
    for benchmark, title in zip(config.benchmarks, titles, strict=True):
        name, _, split = benchmark.partition("/")
        if not split and name not in BENCHMARKS:
            raise EvaluationError(
                f"benchmarks: {name!r} is none of {', '.join(BENCHMARKS)}; for other data sets name a split, NAME/SPLIT"
            )
        split = split or BENCHMARKS[name].split
        try:
            data_set(name).prepare(FOLDER / name, progress=True)
        except (ValueError, OSError) as error:
            raise EvaluationError(f"benchmarks: {error}") from error
        file = Path(FOLDER / name / f"{split}.parquet")
        manifest = read_manifest(file.parent) or {}
        official = manifest.get("official", {}).get(split)
        sets.append(QuestionSet(title, (file,), output / f"{title}.jsonl", official))
    for name, files in (config.files or {}).items():
        sets.append(QuestionSet(str(name), tuple(map(Path, file_list(files))), output / f"{name}.jsonl"))
    if not sets:
        raise EvaluationError("nothing to answer: name benchmarks=[...] or files={NAME:FILE}")
    for question_set in sets:
        official = question_set.official
        whole = not (config.allow_partial or config.limit)
        if whole and official is not None and (count := question_set.questions()) < official:
            raise EvaluationError(
                f"{question_set.name}: {question_set.files[0]} has {count} of {official} questions: prepare the whole "
                "data set with `make data`, or score only those with allow_partial=true"
            )
        for file in question_set.files:
            if not file.is_file():
                raise EvaluationError(f"{question_set.name}: {file} is missing; make it with `mmupt data`")
            try:
                require_prompt(file)
                if config.score:
                    check_truth(file)
            except ValueError as error:
                raise EvaluationError(f"{question_set.name}: {error} (score=false needs no truth)") from error
    return sets


def read_question_rows(question_set: QuestionSet, prompt: str, limit: int | None) -> list[dict[str, Any]]:
    """Read the rows of a set, with the project's prompts ("own") or those of the benchmark's authors ("official").

    Raises:
        EvaluationError: a row cannot be read, two rows share an id, or a row's benchmark has no official prompt.
    """
    try:
        rows = list(islice((row for file in question_set.files for row in whole_rows(file)), limit))
    except ValueError as error:
        raise EvaluationError(str(error)) from error
    if repeated := [id_ for id_, times in Counter(row["id"] for row in rows).items() if times > 1]:
        raise EvaluationError(
            f"{question_set.name}: two rows of {', '.join(map(str, question_set.files))} have the id {repeated[0]!r}: "
            "make ids unique, because they assign responses to questions"
        )
    if prompt == "own":
        return rows
    try:
        questions = {id_: question for file in question_set.files for id_, question in read_questions(file).items()}
        for row in rows:
            benchmark = BENCHMARKS.get(row["data_source"])
            if benchmark is None or benchmark.official_prompt is None:
                raise ValueError(f"{row['data_source']} has no official prompt: set another preset")
            row["prompt"] = [{"role": "user", "content": benchmark.official_prompt(questions[row["id"]])}]
    except ValueError as error:
        raise EvaluationError(f"{question_set.name}: {error}") from error
    return rows


def check_whole(
    question_set: QuestionSet, scores: Sequence[BenchmarkScores[Any]], limit: int | None, allowed: bool
) -> None:
    """Print how many questions of a set are answered and scored, and which questions could not be asked.

    Raises:
        EvaluationError: no question could be asked, or some are not scored and `allowed` is not set.
    """
    name, wanted = question_set.name, min(question_set.questions(), limit or question_set.questions())
    scored = sum(benchmark.questions - benchmark.not_answered - benchmark.left_out for benchmark in scores)
    total = max(question_set.official or 0, question_set.questions())
    tell(f"{name}: {scored} of {total} questions answered and scored{f' (limit={limit})' if limit else ''}")
    refused = {r.id: r.not_asked for r in read_responses(question_set.output)[0] if r.not_asked is not None}
    for id_, why in islice(refused.items(), NAMED):
        tell(f"  not asked, counted as wrong: {id_}: {why}")
    if len(refused) > NAMED:
        tell(f"  and {len(refused) - NAMED} more")
    if wanted and len(refused) == wanted:
        raise EvaluationError(f"{name}: no question could be asked; the first: {next(iter(refused.values()))}")
    if scored < wanted and not allowed:
        raise EvaluationError(
            f"{name}: {scored} of {wanted} questions are answered and scored: remove {question_set.output} and run the "
            "same command again, or score only those with allow_partial=true"
        )


def evaluate(config: DictConfig) -> None:
    """Generate the missing responses to the question sets of a config, and score all if `config.score` is set.

    Raises:
        EvaluationError: before the model is loaded, for anything that is known to fail; at the end, for responses that
            are missing or not judged yet.
        BlockingIOError: another evaluation is writing to the same folder.
    """
    emit(Phase("prepare the questions"))
    require_values(config, EvaluationError)
    judge = _judge(config)
    output = Path(config.output or f"runs/eval/{Path(str(config.model).rstrip('/')).name}").absolute()
    os.environ.setdefault(RUN_FOLDER_VARIABLE, str(output))
    use_folder(output)
    with exclusive_run(output, output / "config.yaml"):
        log_to(output / "logs" / "eval.log")
        settings = _settings(config)
        sets = question_sets(config, output)
        if config.score:
            for question_set in sets:
                _check_scorable(question_set, settings, config.limit)
        emit(_head(config, sets, output))
        settings = replace(settings, model=model_folder(str(config.model), output))
        OmegaConf.save(config, output / "config.yaml")
        emit(Phase("answer the questions"))
        generate(settings, sets, config.limit, config.replace)
        if config.score:
            _score(sets, output, config, judge)


def _score(sets: Sequence[QuestionSet], output: Path, config: DictConfig, judge: Judge | None) -> None:
    """Score the responses to question sets. If the paper has one of the benchmarks, write the table beside its results.

    Raises:
        EvaluationError: responses are missing or not judged yet.
    """
    emit(Phase("score the answers"))
    not_judged = 0
    benchmarks: set[str] = set()
    for question_set in sets:
        scores = score_file(question_set.output, judge=judge)
        not_judged += sum(of_benchmark.not_judged or 0 for of_benchmark in scores)
        benchmarks |= {of_benchmark.benchmark for of_benchmark in scores}
        check_whole(question_set, scores, config.limit, config.allow_partial)
        show_result(f"\n# {shown_path(question_set.output)}\n\n" + "\n\n".join(map(render, scores)) + "\n")
    if benchmarks & PAPER.titles.keys():
        try:
            show_result(write_results(output, read_scores([output])))
        # Earlier evaluations in the folder, and several sets of one benchmark, do not fit into one row.
        except ValueError as error:
            tell(f"there is no table next to the paper's results: {error}")
    if not_judged:
        responses = pluralize(not_judged, "response is", "responses are")
        raise EvaluationError(f"{responses} not judged yet: the same command asks only about these")


def _judge(config: DictConfig) -> Judge | None:
    if (config.judge.url is None) != (config.judge.model is None):
        raise EvaluationError("judge.url and judge.model belong together")
    return Judge(**config.judge) if config.judge.url else None


def _head(config: DictConfig, sets: Sequence[QuestionSet], output: Path) -> Head:
    folder = shown_path(output)
    counts = {question_set.name: question_set.questions() for question_set in sets}
    return Head(
        {
            "model": str(config.model),
            "answers": ", ".join(f"{name} ({min(n, config.limit or n):,} questions)" for name, n in counts.items()),
            "writes to": f"{folder}, all output to {folder}/logs/eval.log",
        }
    )


def _settings(config: DictConfig) -> GenerationSettings:
    try:
        return GenerationSettings.from_config(config, **engine_keys(config))
    except ValueError as error:
        raise EvaluationError(str(error)) from error


def _check_scorable(question_set: QuestionSet, settings: GenerationSettings, limit: int | None) -> None:
    try:
        questions = questions_of({"data": question_set.files, "limit": limit})
        check_scorable(questions, settings.extraction, Comparison(settings.rule))
    except ValueError as error:
        raise EvaluationError(f"{question_set.name}: {error} (score=false only generates)") from error


def generate(
    settings: GenerationSettings, sets: Sequence[QuestionSet], limit: int | None = None, replace: bool = False
) -> None:
    """Generate the missing responses to the questions of all sets.

    Questions with an image that cannot be decoded are not asked; their empty responses say why.

    Raises:
        EvaluationError: a file has responses made with other settings, and `replace` is not set.
    """
    files: dict[str, ResumableFile] = {}
    for question_set in sets:
        try:
            parameters = settings.parameters(question_set.files, limit)
            files[question_set.name] = ResumableFile(question_set.output, parameters, replace)
        except ValueError as error:
            raise EvaluationError(str(error)) from error
    unfinished = [question_set for question_set in sets if not files[question_set.name].whole]
    rows = {question_set.name: read_question_rows(question_set, settings.prompt, limit) for question_set in unfinished}
    answer_missing(settings, files, rows)
    for question_set in sets:
        print(f"{question_set.output}: {'done' if question_set.name in rows else 'up to date'}", flush=True)
