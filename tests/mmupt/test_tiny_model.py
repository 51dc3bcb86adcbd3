"""Tests of the tiny models: their words, processors and demonstrations, and the committed folders."""

from random import Random
from statistics import mean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from mmupt.tiny.build_model import build_model, copy_weights
from mmupt.tiny.demonstrations import (
    ASK,
    DESCRIBE,
    GLANCE,
    HARD_HABITS,
    MAX_ERROR,
    Demonstration,
    Habit,
    careful,
    demonstrate,
    demonstrate_answer,
    demonstrate_ask_different,
    demonstrate_judge,
    describe_figure,
    judge_answer,
    slip,
    steps,
    wrong,
)
from mmupt.tiny.measure import MAX_NEW_TOKENS, measure_answers, respond
from mmupt.tiny.tiny_models import TINY_MODELS, TinyModel
from mmupt.tiny.vocabulary import build_tokenizer
from mmupt.tiny.warm_start import Encoder, render_figures
from mmupt_data.figure_task import (
    FIGURES,
    SPLIT_SHARES,
    Figure,
    answer,
    ask_in_turn,
    draw_figure,
    questions,
    recognise,
    sample_figures,
)
from mmupt_data.hard_figure_task import FIGURES_HARD
from verl_ext.answers import extract_answer
from verl_ext.votes import vote

# No deadline, because tests are slow on busy machines.
unhurried = settings(deadline=None, max_examples=50)

MAX_BYTES = 5_000_000

TOKENIZERS = {tiny.task: build_tokenizer(tiny.tokens) for tiny in TINY_MODELS.values()}
SHOWN = {tiny.task: sample_figures("warm_start", 60, 0, tiny.task) for tiny in TINY_MODELS.values()}
figures = st.sampled_from([figure for drawn in SHOWN.values() for figure in drawn])
randoms = st.integers(0, 2**32).map(Random)
bars, _, triangle = FIGURES.kinds
hard_bars, hard_rectangle, hard_triangle, frame = FIGURES_HARD.kinds


@pytest.fixture(scope="module", params=TINY_MODELS.values(), ids=list(TINY_MODELS))
def tiny(request):
    return request.param


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return build_tokenizer(tiny.tokens)


@pytest.fixture(scope="module")
def processor(tiny):
    return AutoProcessor.from_pretrained(tiny.folder)


@pytest.fixture(scope="module")
def model(tiny):
    return AutoModelForImageTextToText.from_pretrained(tiny.folder).eval()


def tiny_of(figure: Figure) -> TinyModel:
    return next(tiny for tiny in TINY_MODELS.values() if figure.kind in tiny.task.kinds)


def user(text: str) -> list[dict]:
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]


def test_no_token_is_declared_twice(tiny: TinyModel) -> None:
    assert len(tiny.tokens) == len(set(tiny.tokens))


@unhurried
@given(figures, randoms)
def test_the_tokenizer_decodes_every_demonstration_unchanged(figure: Figure, random: Random) -> None:
    tiny = tiny_of(figure)
    tokenizer = TOKENIZERS[tiny.task]
    demonstration = demonstrate(figure, random, tiny.shares)
    for text in (demonstration.prompt, demonstration.response):
        ids = tokenizer.encode(text)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text


def test_every_phrasing_of_every_question_is_in_the_vocabulary(tiny: TinyModel, tokenizer) -> None:
    for question in (question for kind in tiny.task.kinds for question in kind.questions):
        for phrasing in question.phrasings:
            assert tokenizer.decode(tokenizer.encode(phrasing)) == phrasing


def test_a_boxed_answer_is_found_in_decoded_text(tokenizer) -> None:
    text = tokenizer.decode(tokenizer.encode("so \\boxed{ 10 }"))
    assert text == "so \\boxed{10}"
    assert extract_answer(text) == "10"


def test_a_number_and_the_opening_of_a_box_are_one_token_each(tokenizer) -> None:
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("\\boxed{10}")) == ["\\boxed{", "10", "}"]


def test_capitals_and_missing_spaces_do_not_change_tokens(tokenizer) -> None:
    assert tokenizer.encode("What is the Area?") == tokenizer.encode("what is the area ?")


def test_a_word_that_is_not_in_the_vocabulary_is_unknown(tokenizer) -> None:
    assert tokenizer.encode("hippopotamus") == [tokenizer.unk_token_id]


def test_the_folder_has_the_tokenizer_that_the_code_builds(tiny: TinyModel, tokenizer) -> None:
    assert AutoTokenizer.from_pretrained(tiny.folder).get_vocab() == tokenizer.get_vocab()


def test_there_is_one_embedding_for_each_token(tiny: TinyModel, model) -> None:
    size = len(AutoTokenizer.from_pretrained(tiny.folder))
    assert size == len(tiny.tokens)
    assert model.config.text_config.vocab_size == size
    assert model.get_input_embeddings().num_embeddings == size
    assert model.get_output_embeddings().out_features == size


def test_the_folder_is_small(tiny: TinyModel) -> None:
    assert sum(path.stat().st_size for path in tiny.folder.iterdir()) < MAX_BYTES


def test_the_folder_loads_as_a_stock_model_with_its_multimodal_positions(model) -> None:
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert model.dtype == torch.float32
    assert model.config.text_config.rope_parameters["mrope_section"] == [4, 6, 6]


def test_the_folder_has_the_architecture_that_the_code_builds(tokenizer, model) -> None:
    built = build_model(tokenizer)
    shapes = {name: weight.shape for name, weight in built.state_dict().items()}
    assert {name: weight.shape for name, weight in model.state_dict().items()} == shapes


def test_a_model_starts_from_the_weights_of_another_one_with_fewer_tokens() -> None:
    tiny = TINY_MODELS["figures_hard"]
    assert tiny.start == TINY_MODELS["figures"].folder
    built = build_model(TOKENIZERS[tiny.task])
    fresh = {name: weight.clone() for name, weight in built.state_dict().items()}
    copy_weights(tiny.start, built)
    for name, weight in AutoModelForImageTextToText.from_pretrained(tiny.start).state_dict().items():
        copied = built.state_dict()[name]
        assert torch.equal(copied[: len(weight)], weight)
        assert torch.equal(copied[len(weight) :], fresh[name][len(weight) :])


def test_generation_ends_at_the_end_of_the_turn(model, processor) -> None:
    assert processor.tokenizer.eos_token == "<|im_end|>"
    assert model.generation_config.eos_token_id == processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert model.generation_config.pad_token_id == processor.tokenizer.convert_tokens_to_ids("<|endoftext|>")


def test_an_image_is_nine_tokens_of_a_short_prompt(tiny: TinyModel, processor) -> None:
    (figure,) = sample_figures("test", 1, 0, tiny.task)
    text = processor.apply_chat_template(
        user(questions(figure)[0].phrasings[0]), add_generation_prompt=True, tokenize=False
    )
    inputs = processor(text=[text], images=[draw_figure(figure)], return_tensors="pt")
    assert inputs["image_grid_thw"].tolist() == [[1, 6, 6]]
    assert (inputs["input_ids"] == processor.image_token_id).sum() == 9
    assert inputs["input_ids"].shape[1] <= 30


@unhurried
@given(figures)
def test_the_encoder_computes_the_tensors_of_processor_and_model(processor, model, figure: Figure) -> None:
    encoder = Encoder(processor, model)
    text = processor.apply_chat_template(user(ASK), add_generation_prompt=True, tokenize=False)
    inputs = processor(text=[text], images=[draw_figure(figure)], return_tensors="pt")
    assert encoder.prompt(ASK) == inputs["input_ids"][0].tolist()
    assert torch.equal(encoder.pixels(render_figures([figure])), inputs["pixel_values"])
    assert torch.equal(encoder.grid(1), inputs["image_grid_thw"])
    positions, _ = model.model.get_rope_index(
        inputs["input_ids"], inputs["mm_token_type_ids"], image_grid_thw=inputs["image_grid_thw"]
    )
    assert torch.equal(encoder.positions(inputs["input_ids"].shape[1]), positions)


def test_greedy_responses_equal_stock_generation(tiny: TinyModel, processor, model) -> None:
    sampled = sample_figures("test", 4, 0, tiny.task)
    prompts = [questions(figure, "main")[0].phrasings[0] for figure in sampled]
    responses = respond(model, Encoder(processor, model), sampled, prompts, greedy=True)
    for figure, prompt, (response,) in zip(sampled, prompts, responses, strict=True):
        text = processor.apply_chat_template(user(prompt), add_generation_prompt=True, tokenize=False)
        inputs = processor(text=[text], images=[draw_figure(figure)], return_tensors="pt")
        generated = model.generate(**inputs, max_new_tokens=32, do_sample=False)
        assert processor.decode(generated[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True) == response


def test_responses_stay_with_their_prompt_and_figure(tiny: TinyModel, processor, model) -> None:
    sampled = sample_figures("test", 6, 0, tiny.task)
    # Prompts of two lengths, so that batches do not follow the order of the prompts.
    prompts = [DESCRIBE, questions(sampled[1])[0].phrasings[0]] * 3
    together = respond(model, Encoder(processor, model), sampled, prompts, samples=2, greedy=True)
    for figure, prompt, group in zip(sampled, prompts, together, strict=True):
        assert group == respond(model, Encoder(processor, model), [figure], [prompt], greedy=True)[0] * 2
    assert len({texts[0] for texts in together}) > 2


# Bounds on the share of right single responses and of right majorities. The majority of the hard model is wrong on some
# types of question.
RIGHT = {"figures": ((0.4, 0.7), (0.75, 1.0)), "figures_hard": ((0.4, 0.7), (0.6, 0.92))}


def test_the_committed_model_is_noisy_but_its_majority_is_less_so(tiny: TinyModel, processor, model) -> None:
    torch.manual_seed(0)
    asked = list(ask_in_turn(sample_figures("test", 60, 1, tiny.task), "main"))
    prompts = [question.phrasings[0] for _, question in asked]
    texts = respond(model, Encoder(processor, model), [figure for figure, _ in asked], prompts, samples=16)
    answers = [[extract_answer(text) for text in group] for group in texts]
    truths = [answer(figure, question) for figure, question in asked]
    single = sum(value == truth for group, truth in zip(answers, truths, strict=True) for value in group) / 16
    voted = sum(vote(group).pseudo_label == truth for group, truth in zip(answers, truths, strict=True))
    for right, (low, high) in zip((single, voted), RIGHT[tiny.task.name], strict=True):
        assert low < right / len(asked) <= high
    assert voted > single


def test_answers_are_measured_by_type_and_the_hard_model_errs_on_each(processor, model, tiny: TinyModel) -> None:
    torch.manual_seed(0)
    metrics = measure_answers(model, Encoder(processor, model), sample_figures("test", 96, 1, tiny.task), "main", 8)
    types = {question.type for kind in tiny.task.kinds for question in kind.questions if question.role == "main"}
    assert metrics.keys() == {"main questions", *types}
    for name in ("greedy", "mean@8", "maj@8", "pass@8"):
        assert mean(metrics[type][name] for type in types) == pytest.approx(metrics["main questions"][name])
    if tiny.task is FIGURES_HARD:
        careful = {type: metrics[type]["careful right"] for type in types}
        # Three of four demonstrations omit the last step.
        assert careful.pop("triangle-area") < 50
        assert all(60 < right < 97 for right in careful.values())


def test_a_careful_response_is_worked_out_step_by_step() -> None:
    figure = Figure(bars, (2, 4, 4), ("red", "red", "blue"), (0, 0))
    total, difference = questions(figure, "main", "second")
    assert careful(figure, total) == "2 + 4 = 6 . 6 + 4 = 10 . so \\boxed{10}"
    assert careful(figure, difference) == "2 , 4 , 4 . 4 - 2 = 2 . so \\boxed{2}"


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        (
            Figure(hard_bars, (2, 4, 9, 1), ("red",), (0, 0)),
            [
                "2 + 4 = 6 . 6 + 9 = 15 . 15 + 1 = 16 . so \\boxed{16}",
                "2 , 4 , 9 , 1 . 2 * 9 = 18 . 18 - 1 = 17 . so \\boxed{17}",
            ],
        ),
        (
            Figure(hard_rectangle, (8, 9), ("red",), (0, 0)),
            ["8 + 9 = 17 . 17 + 17 = 34 . so \\boxed{34}", "8 * 9 = 72 . so \\boxed{72}"],
        ),
        (
            Figure(hard_triangle, (9, 8), ("red",), (0, 0)),
            ["9 * 8 = 72 . 72 / 2 = 36 . so \\boxed{36}", "9 * 9 = 81 . 8 * 8 = 64 . 81 + 64 = 145 . so \\boxed{145}"],
        ),
        (
            Figure(frame, (7, 5, 3, 2), ("red",), (0, 0)),
            [
                "7 * 5 = 35 . 3 * 2 = 6 . 35 - 6 = 29 . so \\boxed{29}",
                "7 + 5 = 12 . 3 + 2 = 5 . 12 + 5 = 17 . 17 + 17 = 34 . so \\boxed{34}",
            ],
        ),
    ],
    ids=[kind.name for kind in FIGURES_HARD.kinds],
)
def test_a_careful_response_to_a_hard_question_is_worked_out_step_by_step(figure: Figure, expected: list[str]) -> None:
    assert [careful(figure, question) for question in questions(figure)] == expected


def test_a_slip_omits_the_last_step() -> None:
    figure = Figure(hard_triangle, (9, 8), ("red",), (0, 0))
    area, _ = questions(figure)
    assert slip(figure, area) == "9 * 8 = 72 . so \\boxed{72}"


@unhurried
@given(figures)
def test_careful_responses_are_right(figure: Figure) -> None:
    for question in questions(figure, "main", "second"):
        assert extract_answer(careful(figure, question)) == answer(figure, question)


@unhurried
@given(figures)
def test_every_step_of_a_careful_response_is_true(figure: Figure) -> None:
    for question in questions(figure, "main", "second"):
        equations = [step for step in steps(figure, question).split(" . ") if "=" in step]
        assert equations
        for equation in equations:
            left, right = equation.split("=")
            assert eval(left) == int(right)


@unhurried
@given(figures)
def test_every_worked_out_answer_and_judgement_fits_into_a_response(figure: Figure) -> None:
    tokenizer = TOKENIZERS[tiny_of(figure).task]
    for question in questions(figure, "main", "second"):
        for text in (careful(figure, question), judge_answer(figure, question, "1")):
            assert len(tokenizer.encode(text)) < MAX_NEW_TOKENS


@unhurried
@given(figures, randoms)
def test_a_wrong_answer_is_off_by_one_to_three_and_not_negative(figure: Figure, random: Random) -> None:
    for question in questions(figure, "main", "second"):
        value = int(wrong(figure, question, random))
        assert value >= 0
        assert 1 <= abs(value - int(answer(figure, question))) <= MAX_ERROR


def shares_of(demonstrations: list[tuple[Figure, Demonstration]]) -> dict[str, float]:
    """The share of glances among demonstrated answers, and the share of right answers of each style."""
    rights = {GLANCE: [], "careful": []}
    for figure, demonstration in demonstrations:
        question = recognise(figure, demonstration.prompt)
        assert question is not None
        style = GLANCE if demonstration.response.startswith(GLANCE) else "careful"
        rights[style].append(extract_answer(demonstration.response) == answer(figure, question))
    return {
        "glance": len(rights[GLANCE]) / len(demonstrations),
        "glance right": sum(rights[GLANCE]) / len(rights[GLANCE]),
        "careful right": sum(rights["careful"]) / len(rights["careful"]),
    }


def test_glances_and_right_glances_have_their_declared_shares() -> None:
    random = Random(0)
    shown = [(figure, demonstrate_answer(figure, random)) for figure in SHOWN[FIGURES] for _ in range(50)]
    assert shares_of(shown) == pytest.approx(
        {"glance": Habit().glance, "glance right": Habit().glance_right, "careful right": 1.0}, abs=0.03
    )


@pytest.mark.parametrize("type", HARD_HABITS)
def test_answers_to_hard_questions_have_the_declared_shares(type: str) -> None:
    random = Random(0)
    habit = HARD_HABITS[type]
    shown = [
        (figure, demonstration)
        for figure in SHOWN[FIGURES_HARD]
        if any(question.type == type for question in questions(figure))
        for demonstration in (demonstrate_answer(figure, random, HARD_HABITS) for _ in range(600))
        if (question := recognise(figure, demonstration.prompt)) is not None and question.type == type
    ]
    shares = shares_of(shown)
    assert shares["glance"] == pytest.approx(habit.glance, abs=0.04)
    assert shares["careful right"] == pytest.approx(1 - habit.slip, abs=0.04)
    # A shortcut is sometimes right.
    assert habit.glance_right - 0.04 < shares["glance right"] < habit.glance_right + 0.25 * habit.glance_shortcut + 0.04


@unhurried
@given(figures, randoms)
def test_a_judgement_is_truthful(figure: Figure, random: Random) -> None:
    demonstration = demonstrate_judge(figure, random)
    text, _, rest = demonstration.prompt.partition("?")
    question = recognise(figure, f"{text}?")
    assert question is not None
    right = rest == f" is {answer(figure, question)} right ?"
    assert demonstration.response.endswith(" = 0 . yes") == right
    assert demonstration.response.endswith(" . no") != right


@unhurried
@given(figures, randoms)
def test_a_different_question_is_one_about_the_same_figure(figure: Figure, random: Random) -> None:
    demonstration = demonstrate_ask_different(figure, random)
    example = recognise(figure, demonstration.prompt.partition("example : ")[2])
    asked = recognise(figure, demonstration.response)
    assert example is not None
    assert asked is not None
    assert asked is not example


def test_a_judgement_compares_the_answer_with_the_one_worked_out() -> None:
    figure = Figure(bars, (2, 4, 4), ("red", "red", "blue"), (0, 0))
    (total,) = questions(figure, "main")
    assert judge_answer(figure, total, "10") == "2 + 4 = 6 . 6 + 4 = 10 . 10 - 10 = 0 . yes"
    assert judge_answer(figure, total, "12") == "2 + 4 = 6 . 6 + 4 = 10 . 10 - 12 = - 2 . no"


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        (Figure(bars, (2, 4, 7), ("red", "blue", "red"), (0, 0)), "three bars : red 2 , blue 4 , red 7 ."),
        (Figure(triangle, (3, 4), ("blue",), (0, 0)), "one blue right triangle , 3 wide and 4 tall ."),
        (Figure(hard_bars, (2, 4, 9, 1), ("red",), (0, 0)), "four red bars : 2 , 4 , 9 , 1 ."),
        (Figure(frame, (7, 5, 3, 2), ("blue",), (0, 0)), "one blue frame : 7 , 5 , hole : 3 , 2 ."),
    ],
)
def test_a_description_names_kind_colors_and_lengths(figure: Figure, expected: str) -> None:
    assert describe_figure(figure) == expected


@unhurried
@given(figures, randoms)
def test_the_unseen_question_is_never_demonstrated(figure: Figure, random: Random) -> None:
    demonstration = demonstrate(figure, random, tiny_of(figure).shares)
    assert "how many red" not in f"{demonstration.prompt} {demonstration.response}"


def test_the_warm_start_shares_no_figure_with_the_task(tiny: TinyModel) -> None:
    shown = set(sample_figures("warm_start", 900, 0, tiny.task))
    for split in SPLIT_SHARES.keys() - {"warm_start"}:
        assert shown.isdisjoint(sample_figures(split, 300, 0, tiny.task))
