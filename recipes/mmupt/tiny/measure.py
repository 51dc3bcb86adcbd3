"""Measures a tiny model on held-out figures: its answers by type of question, their style, and its other skills.

mmupt tiny-model measure [MODEL] [--task figures_hard]
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from random import Random
from statistics import fmean

import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor
from transformers.cache_utils import DynamicCache

from mmupt.tiny.demonstrations import ASK, ASK_DIFFERENT, DESCRIBE, GLANCE, demonstrate_judge, describe_figure
from mmupt.tiny.warm_start import Encoder, render_figures
from mmupt_data.figure_task import (
    Figure,
    FigureTask,
    Role,
    answer,
    ask_in_turn,
    questions,
    recognise,
    sample_figures,
)
from verl_ext.answers import extract_answer
from verl_ext.votes import vote

MAX_NEW_TOKENS = 32
PROMPTS_AT_ONCE = 64


def respond(
    model: Qwen2_5_VLForConditionalGeneration,
    encoder: Encoder,
    figures: Sequence[Figure],
    prompts: Sequence[str],
    *,
    samples: int = 1,
    greedy: bool = False,
    force_careful: bool = False,
) -> list[list[str]]:
    """Return `samples` responses to each figure's prompt, at temperature 1 or greedy.

    Special tokens are never sampled, as in training rollouts. With `force_careful`, no response starts like a glance.
    """
    lengths = [len(encoder.prompt(prompt)) for prompt in prompts]
    responses: dict[int, list[str]] = {}
    # Prompts of equal length need no padding, and an image is encoded only once for all samples.
    for _, group in groupby(sorted(range(len(prompts)), key=lengths.__getitem__), key=lengths.__getitem__):
        rows = list(group)
        for chunk in (rows[first : first + PROMPTS_AT_ONCE] for first in range(0, len(rows), PROMPTS_AT_ONCE)):
            ids = torch.tensor([encoder.prompt(prompts[row]) for row in chunk])
            pixels = encoder.pixels(render_figures([figures[row] for row in chunk]))
            tokens = _generate(model, encoder, ids, pixels, samples, greedy, force_careful)
            texts = encoder.tokenizer.batch_decode(tokens, skip_special_tokens=True)
            responses |= {row: texts[index * samples : (index + 1) * samples] for index, row in enumerate(chunk)}
    return [responses[row] for row in range(len(prompts))]


@torch.inference_mode()
def _generate(
    model: Qwen2_5_VLForConditionalGeneration,
    encoder: Encoder,
    ids: Tensor,
    pixels: Tensor,
    samples: int,
    greedy: bool,
    force_careful: bool,
) -> Tensor:
    count, length = ids.shape
    positions = encoder.positions(length + MAX_NEW_TOKENS)
    banned = [token for token in encoder.tokenizer.all_special_ids if token != encoder.end]
    cache = DynamicCache(config=model.config.text_config)
    logits = model(
        input_ids=ids,
        position_ids=positions[..., :length].expand(3, count, length),
        pixel_values=pixels,
        image_grid_thw=encoder.grid(count),
        past_key_values=cache,
        logits_to_keep=1,
    ).logits[:, -1]
    cache.batch_repeat_interleave(samples)
    logits = logits.repeat_interleave(samples, dim=0)
    if force_careful:
        logits[:, encoder.tokenizer.encode(GLANCE)] = -torch.inf
    ended = torch.zeros(count * samples, dtype=torch.bool)
    tokens: list[Tensor] = []
    for position in range(length, length + MAX_NEW_TOKENS):
        logits[:, banned] = -torch.inf
        token = logits.argmax(-1) if greedy else torch.multinomial(logits.softmax(-1), 1).squeeze(-1)
        tokens.append(token.masked_fill(ended, encoder.end))
        ended |= token == encoder.end
        if ended.all():
            break
        logits = model(
            input_ids=tokens[-1].unsqueeze(-1),
            position_ids=positions[..., position : position + 1].expand(3, count * samples, 1),
            past_key_values=cache,
        ).logits[:, -1]
    return torch.stack(tokens, dim=1)


@dataclass(frozen=True)
class _Answers:
    """The answers to one question.

    Attributes:
        type: type of the question.
        truth: right answer.
        greedy: greedy answer, None without a boxed answer.
        careful: greedy answer with the careful style forced, None without a boxed answer.
        sampled: answer of each sample, None without a boxed answer.
        glances: whether each sample is a glance.
        lengths: tokens of each sample.
    """

    type: str
    truth: str
    greedy: str | None
    careful: str | None
    sampled: list[str | None]
    glances: list[bool]
    lengths: list[int]

    @property
    def rights(self) -> list[bool]:
        return [value == self.truth for value in self.sampled]


def measure_answers(
    model: Qwen2_5_VLForConditionalGeneration, encoder: Encoder, figures: Sequence[Figure], role: Role, samples: int
) -> dict[str, dict[str, float]]:
    """Measure the answers to the questions of one role: all of them, and each type if there are several.

    Returns:
        group of questions -> name of the score -> percent, or tokens for the mean response length.
    """
    pairs = list(ask_in_turn(figures, role))
    figures = [figure for figure, _ in pairs]
    prompts = [question.phrasings[0] for _, question in pairs]
    sampled = respond(model, encoder, figures, prompts, samples=samples)
    greedy = respond(model, encoder, figures, prompts, greedy=True)
    careful = respond(model, encoder, figures, prompts, greedy=True, force_careful=True)
    answers = [
        _Answers(
            question.type,
            answer(figure, question),
            extract_answer(greedy_text),
            extract_answer(careful_text),
            [extract_answer(text) for text in texts],
            [text.startswith(GLANCE) for text in texts],
            [len(encoder.response(text)) for text in texts],
        )
        for (figure, question), texts, (greedy_text,), (careful_text,) in zip(
            pairs, sampled, greedy, careful, strict=True
        )
    ]
    types = sorted({question.type for question in answers})
    scores = {f"{role} questions": _scores(answers, samples)}
    if len(types) > 1:
        scores |= {
            type: _scores([question for question in answers if question.type == type], samples) for type in types
        }
    return scores


def _scores(answers: Sequence[_Answers], samples: int) -> dict[str, float]:
    votes = [vote(question.sampled) for question in answers]
    rights = [right for question in answers for right in question.rights]
    glances = [glance for question in answers for glance in question.glances]
    return {
        "greedy": _percent(question.greedy == question.truth for question in answers),
        "greedy, careful forced": _percent(question.careful == question.truth for question in answers),
        f"mean@{samples}": _percent(rights),
        f"maj@{samples}": _percent(
            elected.pseudo_label == question.truth for question, elected in zip(answers, votes, strict=True)
        ),
        f"pass@{samples}": _percent(any(question.rights) for question in answers),
        "majority ratio": _percent(elected.majority_ratio for elected in votes),
        "glances": _percent(glances),
        "glances right": _percent(right for right, is_glance in zip(rights, glances, strict=True) if is_glance),
        "careful right": _percent(right for right, is_glance in zip(rights, glances, strict=True) if not is_glance),
        "unboxed": _percent(value is None for question in answers for value in question.sampled),
        "tokens": fmean(length for question in answers for length in question.lengths),
    }


def measure_skills(
    model: Qwen2_5_VLForConditionalGeneration, encoder: Encoder, figures: Sequence[Figure], seed: int
) -> dict[str, float]:
    """Measure how well the model judges answers, asks questions and describes figures, in percent."""
    random = Random(f"measure/{seed}")
    judgements = [demonstrate_judge(figure, random) for figure in figures]
    verdicts = respond(model, encoder, figures, [judgement.prompt for judgement in judgements], greedy=True)
    pairs = [
        (text.split()[-1:], shown.response.split()[-1:]) for (text,), shown in zip(verdicts, judgements, strict=True)
    ]

    examples = [questions(figure, "main")[0] for figure in figures]
    texts = respond(model, encoder, figures, [ASK] * len(figures))
    texts_after_example = respond(
        model, encoder, figures, [ASK_DIFFERENT.format(question=example.phrasings[0]) for example in examples]
    )
    asked = [recognise(figure, text) for figure, (text,) in zip(figures, texts, strict=True)]
    asked_after_example = [
        recognise(figure, text) for figure, (text,) in zip(figures, texts_after_example, strict=True)
    ]
    described = respond(model, encoder, figures, [DESCRIBE] * len(figures), greedy=True)
    return {
        "judge right": _percent(verdict == truth for verdict, truth in pairs),
        "judge right on right answers": _percent(verdict == truth for verdict, truth in pairs if truth == ["yes"]),
        "judge right on wrong answers": _percent(verdict == truth for verdict, truth in pairs if truth == ["no"]),
        "asked, valid": _percent(question is not None for question in asked),
        "asked after an example, valid": _percent(question is not None for question in asked_after_example),
        "asked after an example, valid and different": _percent(
            question not in (None, example) for question, example in zip(asked_after_example, examples, strict=True)
        ),
        "described truly": _percent(text == describe_figure(f) for f, (text,) in zip(figures, described, strict=True)),
    }


def load(folder: Path) -> tuple[Qwen2_5_VLForConditionalGeneration, Encoder]:
    """Load a tiny model and its encoder from a folder; FileNotFoundError if it is not a model folder."""
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} is not a model folder: it has no config.json")
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder).eval()
    return model, Encoder(Qwen2_5_VLProcessor.from_pretrained(folder), model)


def measure(
    model: Qwen2_5_VLForConditionalGeneration,
    encoder: Encoder,
    task: FigureTask,
    *,
    count: int = 999,
    samples: int = 16,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Measure all metrics on `count` figures of the test split.

    Returns:
        group of questions, or "skills" -> name of the metric -> value, as `measure_answers` and `measure_skills`.
    """
    torch.manual_seed(seed)
    figures = sample_figures("test", count, seed, task)
    roles = dict.fromkeys(question.role for kind in task.kinds for question in kind.questions)
    metrics: dict[str, dict[str, float]] = {}
    for role in roles:
        metrics |= measure_answers(model, encoder, figures, role, samples)
    return metrics | {"skills": measure_skills(model, encoder, figures, seed)}


def format_metrics(metrics: dict[str, dict[str, float]]) -> str:
    """Format the metrics of `measure` as text, one per line."""
    return "\n".join(
        line
        for title, values in metrics.items()
        for line in (f"{title}:", *(f"  {name:45s} {value:5.1f}" for name, value in values.items()))
    )


def _percent(values: Iterable[float]) -> float:
    values = list(values)
    return 100 * sum(values) / len(values) if values else float("nan")
