"""Have a model write questions about images, and keep the questions worth training on.

    mmupt synthesize model=Qwen/Qwen2.5-VL-7B-Instruct data=datasets/mmr1/train.parquet

`synthesis/config/` documents every key, docs/synthesis.md every filter. The output folder gets the questions
(`train.parquet`, without answers), `candidates.jsonl` with the outcome of every response, a report, and a page of
images with their questions. After an interruption, the same command generates only the missing responses.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf

from mmupt.compose import compose_entry, require_values
from mmupt.console import Head, Phase, emit, log_to, show_result, shown_path
from mmupt.evaluation.generation import EngineError, Refused
from mmupt.evaluation.generation_settings import GenerationSettings
from mmupt.evaluation.response_cache import ResponseCache, prompt_row
from mmupt.evaluation.resumable_file import OtherParametersError
from mmupt.hardware import engine_keys
from mmupt.prompt_templates import PromptError, fill_template, read_prompt
from mmupt.runtime.environment import use_folder
from mmupt.runtime.export import model_folder
from mmupt.runtime.run_lock import RUN_FOLDER_VARIABLE, exclusive_run
from mmupt.synthesis import PROMPTS
from mmupt.synthesis.candidate_page import write_candidate_page
from mmupt.synthesis.candidates import Candidate, JudgedCandidate
from mmupt.synthesis.filters import FILTERS, Reason, difficulty, names, self_check
from mmupt.synthesis.source_rows import Parent, read_parents
from mmupt.synthesis.strategies import STRATEGIES, StrategyPrompt
from mmupt.synthesis.synthesis_report import write_report
from mmupt.synthesis.synthesized_dataset import CANDIDATES, write_candidates, write_questions, write_request_rows
from verl_ext.answers import Extraction, extract_answer
from verl_ext.files import file_list
from verl_ext.rewards.question_parsing import question_in
from verl_ext.unknown_keys import is_number, is_whole, refuse_values
from verl_ext.votes import Vote, vote

CONFIG_FOLDER = Path(__file__).parent / "config"
# Settings of filters: the check of a value, and a description of the allowed values.
THRESHOLDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "enabled": (lambda value: isinstance(value, bool), "true or false"),
    "ngram": (lambda value: is_whole(value, 1), "a whole number of at least 1"),
    **dict.fromkeys(
        ("min_words", "max_words", "max_characters"), (lambda value: is_whole(value, 0), "a whole number of at least 0")
    ),
    **dict.fromkeys(
        ("max_other_share", "min_similarity", "low", "high"),
        (lambda value: is_number(value, 0, 1), "a number from 0 to 1"),
    ),
}


class SynthesisError(Exception):
    """The synthesis cannot run or kept no question; the message names the key or file, and the fix."""


def load_synthesis_config(overrides: Sequence[str]) -> DictConfig:
    """Compose the config; SynthesisError for an unknown key or anything else that Hydra refuses."""
    return compose_entry(CONFIG_FOLDER, "synthesis", overrides, SynthesisError)


def synthesize(config: DictConfig) -> Path:
    """Write questions and reports into the output folder, reusing saved responses; returns the file of questions.

    Raises:
        SynthesisError: the config or data cannot be used (raised before generation), generation failed, or no question
            is left.
        BlockingIOError: another synthesis is writing into the same folder.
    """
    require_values(config, SynthesisError)
    files = [Path(file) for file in file_list(config.data)]
    if missing := [str(file) for file in files if not file.is_file()]:
        raise SynthesisError(f"data: {', '.join(missing)} is missing; make it by `mmupt data`")
    if unknown := sorted(set(config.strategies) - STRATEGIES.keys()):
        raise SynthesisError(f"strategies: {', '.join(unknown)} is none of {', '.join(STRATEGIES)}")
    output = Path(config.output or f"runs/synthesis/{Path(str(config.model).rstrip('/')).name}").absolute()
    os.environ.setdefault(RUN_FOLDER_VARIABLE, str(output))
    use_folder(output)
    with exclusive_run(output, output / "config.yaml"):
        log_to(output / "logs" / "synthesis.log")
        emit(_head(config, output))
        emit(Phase("read the rows"))
        try:
            _check_values(config)
            prompts = {name: read_prompt(prompt, PROMPTS) for name, prompt in config.prompts.items()}
            asking, quick, checking = _settings(config, model_folder(str(config.model), output))
            parents, without_images = read_parents(files, config.limit)
            if not parents:
                raise ValueError(f"data: none of the {without_images} rows that are read has an image")
        except ValueError as error:
            raise SynthesisError(str(error)) from error
        OmegaConf.save(config, output / "config.yaml")
        cache = ResponseCache(output / "responses", files, config.limit, config.replace)
        try:
            voted = voted_answers(cache, quick, parents) if config.show_voted_answer else {}
            candidates = ask(config, cache, asking, prompts, parents, voted)
            judged = filter_candidates(config, cache, (checking, quick), prompts["self_check"], parents, candidates)
        except (EngineError, OtherParametersError, PromptError, Refused) as error:
            raise SynthesisError(str(error)) from error
        write_candidates(output / CANDIDATES, judged)
        off = {name for name, block in config.filters.items() if not block.enabled}
        report = write_report(
            output, judged, [name for name in names() if name not in off], len(parents), without_images
        )
        write_candidate_page(output / "sheet.html", parents, judged, config.shown, config.seed)
        show_result(report)
        if not any(one.kept for one in judged):
            raise SynthesisError(f"{output}: no question of {len(judged)} is left; report.md says what dropped them")
        return write_questions(output, str(config.name), parents, judged, str(config.model), config.round)


def _check_values(config: DictConfig) -> None:
    """Raise ValueError for values that would otherwise fail only after generation."""
    allowed = {
        "name": (Path(str(config.name)).name == str(config.name), "the name of a file, without /"),
        "round": (is_whole(config.round, 0), "a whole number of at least 0"),
        "seed": (is_whole(config.seed), "a whole number"),
        "shown": (is_whole(config.shown, 0), "a whole number of at least 0"),
    }
    refuse_values(config, allowed)
    for name, block in config.filters.items():
        known = {key: THRESHOLDS[key] for key in block if key in THRESHOLDS}
        refuse_values(
            block, {key: (check(block[key]), values) for key, (check, values) in known.items()}, f"filters.{name}."
        )


def write_requests(config: DictConfig, folder: Path) -> Path:
    """Write the requests of `synthesize` as training rows for a writer of questions; returns their file.

    Raises:
        SynthesisError: the data cannot be read, or a prompt cannot be filled.
    """
    try:
        prompts = {name: read_prompt(prompt, PROMPTS) for name, prompt in config.prompts.items()}
        parents, _ = read_parents([Path(file) for file in file_list(config.data)], config.limit)
        return write_request_rows(folder, str(config.name), _asked(config, prompts, parents, {}))
    except (OSError, ValueError) as error:
        raise SynthesisError(str(error)) from error


def _head(config: DictConfig, output: Path) -> Head:
    folder = shown_path(output)
    return Head(
        {
            "model": str(config.model),
            "about": f"the images of {', '.join(file_list(config.data))}",
            "strategies": ", ".join(config.strategies),
            "writes to": f"{folder}, all output to {folder}/logs/synthesis.log",
        }
    )


def _settings(config: DictConfig, model: str) -> tuple[GenerationSettings, GenerationSettings, GenerationSettings]:
    """Generation settings for writing questions, for quick responses and for the self-check."""
    names = (
        *("system_prompt", "max_model_len", "min_pixels", "max_pixels", "tensor_parallel_size", "engine"),
        "chat_template_kwargs",
    )
    content: Any = OmegaConf.to_container(config, resolve=True)
    common = {name: content[name] for name in names}
    # One seed per round: on the CPU requests have no seeds of their own, so ids alone would not vary the draws.
    digest = hashlib.sha256(f"{config.seed} {config.round}".encode()).digest()
    common |= {"seed": int.from_bytes(digest[:4], "big")}
    common |= {"model": model, "prompt": "own", "greedy": False, **engine_keys(config)}
    plain: dict[str, Any] = {"instruction": None, "extraction": "boxed"}
    greedy: dict[str, Any] = {"greedy": True, "samples": 0, "temperature": 0.0, "top_p": 1.0}
    if config.respond.extraction not in get_args(Extraction):
        raise ValueError(f"respond.extraction must be one of {', '.join(get_args(Extraction))}")
    return (
        GenerationSettings(**common, **plain, **content["ask"]),
        GenerationSettings(**common, **content["respond"]),
        GenerationSettings(**{**common, **plain, **greedy, "max_tokens": config.filters.self_check.max_tokens}),
    )


def voted_answers(cache: ResponseCache, quick: GenerationSettings, parents: Sequence[Parent]) -> dict[str, str]:
    """Majority answers of the model's responses to the existing questions, by row id; tied rows are left out."""
    asked = {parent.id: parent for parent in parents if parent.question}
    rows = [prompt_row(id_, parent.images, parent.question or "") for id_, parent in asked.items()]
    votes = {
        id_: _vote(said, quick, asked[id_].choices) for id_, said in cache.responses("parents", quick, rows).items()
    }
    return {id_: of_row.pseudo_label for id_, of_row in votes.items() if of_row.pseudo_label is not None}


def _vote(responses: Sequence[str], quick: GenerationSettings, choices: Sequence[str] | None = None) -> Vote:
    extraction: Any = quick.extraction
    return vote([extract_answer(response, extraction) for response in responses], choices=choices)


def ask(
    config: DictConfig,
    cache: ResponseCache,
    asking: GenerationSettings,
    prompts: Mapping[str, str],
    parents: Sequence[Parent],
    voted: Mapping[str, str],
) -> list[Candidate]:
    """Generate questions about every row with every applicable strategy, in the order of strategies."""
    asked = _asked(config, prompts, parents, voted)
    rows = [prompt_row(id_, parent.images, text) for id_, (parent, _, text) in asked.items()]
    said = cache.responses("questions", asking, rows)
    return [
        Candidate(
            id=f"{id_}-{number}",
            parent=parent.id,
            strategy=strategy,
            image=parent.image,
            parent_question=parent.question,
            prompt_sha256=hashlib.sha256(text.encode()).hexdigest(),
            response=response,
            question=question_in(response),
        )
        for id_, (parent, strategy, text) in asked.items()
        for number, response in enumerate(said[id_])
    ]


def _asked(
    config: DictConfig, prompts: Mapping[str, str], parents: Sequence[Parent], voted: Mapping[str, str]
) -> dict[str, tuple[Parent, str, str]]:
    """The requests to the model: row, strategy and text by request id, in the order of strategies."""
    asked: dict[str, tuple[Parent, str, str]] = {}
    for strategy in config.strategies:
        for parent in parents:
            if (wanted := STRATEGIES[strategy](parent, voted.get(parent.id))) is not None:
                text = fill_template(_template(wanted, prompts), wanted.texts)
                asked[f"{parent.id}-{strategy}-r{config.round}"] = parent, strategy, text
    return asked


def _template(wanted: StrategyPrompt, prompts: Mapping[str, str]) -> str:
    template = prompts.get(wanted.prompt, wanted.template)
    if template is None:
        raise PromptError(f"prompts.{wanted.prompt} is missing: set it to a .txt file, or give the strategy a template")
    return template


def filter_candidates(
    config: DictConfig,
    cache: ResponseCache,
    settings: tuple[GenerationSettings, GenerationSettings],
    prompt: str,
    parents: Sequence[Parent],
    candidates: Sequence[Candidate],
) -> list[JudgedCandidate]:
    """Apply the enabled filters, those that need the model last; returns all candidates in order."""
    images = {parent.id: parent.images for parent in parents}
    checking, quick = settings
    left = list(candidates)
    dropped: dict[str, tuple[str, str]] = {}
    shares: dict[str, float] = {}

    def apply(name: str, reasons: Sequence[Reason]) -> None:
        found = {one.id: (name, reason) for one, reason in zip(left, reasons, strict=True) if reason is not None}
        dropped.update(found)
        left[:] = [one for one in left if one.id not in found]

    thresholds: Any = OmegaConf.to_container(config.filters, resolve=True)
    enabled = {name: block.pop("enabled") for name, block in thresholds.items()}
    for name, function in FILTERS.items():
        if enabled.get(name, True):
            apply(name, function(left, **thresholds.get(name, {})))
    if enabled["self_check"]:
        rows = [
            prompt_row(one.id, images[one.parent], fill_template(prompt, {"question": one.question or ""}))
            for one in left
        ]
        replies = cache.responses("self_check", checking, rows)
        apply("self_check", self_check(left, {id_: reply for id_, (reply,) in replies.items()}))
    if enabled["difficulty"]:
        rows = [prompt_row(one.id, images[one.parent], one.question or "") for one in left]
        for id_, said in cache.responses("difficulty", quick, rows).items():
            shares[id_] = _vote(said, quick).majority_ratio
        apply("difficulty", difficulty(left, shares, **thresholds["difficulty"]))
    outcome = {one.id: dropped.get(one.id, (None, None)) for one in candidates}
    return [JudgedCandidate(one, outcome[one.id][0], outcome[one.id][1], shares.get(one.id)) for one in candidates]
