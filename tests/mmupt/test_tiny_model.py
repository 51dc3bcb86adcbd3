"""Tests of the tiny model: its words, its processor, its demonstrations, and the committed folder."""

from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from mmupt.tiny import FOLDER
from mmupt.tiny.build_model import build_model, build_processor
from mmupt.tiny.demonstrations import (
    ASK,
    DESCRIBE,
    GLANCE,
    GLANCE_RIGHT_SHARE,
    GLANCE_SHARE,
    MAX_ERROR,
    SHARES,
    careful,
    demonstrate,
    demonstrate_answer,
    demonstrate_ask_different,
    demonstrate_judge,
    describe_figure,
    glance,
    judge_answer,
    steps,
    wrong,
)
from mmupt.tiny.measure import respond
from mmupt.tiny.vocabulary import TOKENS, build_tokenizer
from mmupt.tiny.warm_start import Encoder, render_figures
from mmupt_data.figure_task import (
    QUESTIONS,
    SPLIT_SHARES,
    Figure,
    answer,
    draw_figure,
    questions,
    recognise,
    sample_figures,
)
from verl_ext.answers import extract_answer
from verl_ext.votes import vote

# Busy machines are slow, not wrong.
unhurried = settings(deadline=None, max_examples=50)

MAX_BYTES = 5_000_000

FIGURES = sample_figures("warm_start", 60, 0)
figures = st.sampled_from(FIGURES)
randoms = st.integers(0, 2**32).map(Random)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model():
    return AutoModelForImageTextToText.from_pretrained(FOLDER).eval()


def user(text: str) -> list[dict]:
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]


def test_no_token_is_declared_twice() -> None:
    assert len(TOKENS) == len(set(TOKENS))


@unhurried
@given(figures, randoms)
def test_every_demonstration_comes_back_unchanged_from_the_tokenizer(figure: Figure, random: Random) -> None:
    tokenizer = build_tokenizer()
    demonstration = demonstrate(figure, random, SHARES)
    for text in (demonstration.prompt, demonstration.response):
        ids = tokenizer.encode(text)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text


def test_every_phrasing_of_every_question_is_in_the_vocabulary(tokenizer) -> None:
    for question in QUESTIONS:
        for phrasing in question.phrasings:
            assert tokenizer.decode(tokenizer.encode(phrasing)) == phrasing


def test_a_boxed_answer_is_found_in_decoded_text(tokenizer) -> None:
    text = tokenizer.decode(tokenizer.encode("so \\boxed{ 10 }"))
    assert text == "so \\boxed{10}"
    assert extract_answer(text) == "10"


def test_a_number_and_the_opening_of_a_box_are_one_token_each(tokenizer) -> None:
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("\\boxed{10}")) == ["\\boxed{", "10", "}"]


def test_capitals_and_missing_spaces_change_nothing(tokenizer) -> None:
    assert tokenizer.encode("What is the Area?") == tokenizer.encode("what is the area ?")


def test_a_word_that_is_not_in_the_vocabulary_is_unknown(tokenizer) -> None:
    assert tokenizer.encode("hippopotamus") == [tokenizer.unk_token_id]


def test_the_folder_holds_the_tokenizer_that_the_code_builds(tokenizer) -> None:
    assert AutoTokenizer.from_pretrained(FOLDER).get_vocab() == tokenizer.get_vocab()


def test_there_is_one_embedding_for_each_token(model) -> None:
    size = len(AutoTokenizer.from_pretrained(FOLDER))
    assert size == len(TOKENS)
    assert model.config.text_config.vocab_size == size
    assert model.get_input_embeddings().num_embeddings == size
    assert model.get_output_embeddings().out_features == size


def test_the_folder_is_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < MAX_BYTES


def test_the_folder_loads_as_a_stock_model_with_its_multimodal_positions(model) -> None:
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert model.dtype == torch.float32
    assert model.config.text_config.rope_parameters["mrope_section"] == [4, 6, 6]


def test_the_folder_has_the_architecture_that_the_code_builds(model) -> None:
    built = build_model(build_processor().tokenizer)
    shapes = {name: weight.shape for name, weight in built.state_dict().items()}
    assert {name: weight.shape for name, weight in model.state_dict().items()} == shapes


def test_generation_ends_at_the_end_of_the_turn(model, processor) -> None:
    assert processor.tokenizer.eos_token == "<|im_end|>"
    assert model.generation_config.eos_token_id == processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert model.generation_config.pad_token_id == processor.tokenizer.convert_tokens_to_ids("<|endoftext|>")


def test_an_image_is_nine_tokens_of_a_short_prompt(processor) -> None:
    (figure,) = sample_figures("test", 1, 0)
    text = processor.apply_chat_template(
        user(questions(figure)[0].phrasings[0]), add_generation_prompt=True, tokenize=False
    )
    inputs = processor(text=[text], images=[draw_figure(figure)], return_tensors="pt")
    assert inputs["image_grid_thw"].tolist() == [[1, 6, 6]]
    assert (inputs["input_ids"] == processor.image_token_id).sum() == 9
    assert inputs["input_ids"].shape[1] <= 30


@unhurried
@given(figures)
def test_the_encoder_gives_the_tensors_of_the_processor_and_the_model(processor, model, figure: Figure) -> None:
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


def test_greedy_responses_are_those_of_the_stock_generation(processor, model) -> None:
    sampled = sample_figures("test", 3, 0)
    prompts = [questions(figure, "main")[0].phrasings[0] for figure in sampled]
    responses = respond(model, Encoder(processor, model), sampled, prompts, greedy=True)
    for figure, prompt, (response,) in zip(sampled, prompts, responses, strict=True):
        text = processor.apply_chat_template(user(prompt), add_generation_prompt=True, tokenize=False)
        inputs = processor(text=[text], images=[draw_figure(figure)], return_tensors="pt")
        generated = model.generate(**inputs, max_new_tokens=32, do_sample=False)
        assert processor.decode(generated[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True) == response


def test_responses_stay_with_their_prompt_and_figure(processor, model) -> None:
    sampled = sample_figures("test", 6, 0)
    # Prompts of two lengths, so that batches do not follow the order of the prompts.
    prompts = [DESCRIBE, questions(sampled[1])[0].phrasings[0]] * 3
    together = respond(model, Encoder(processor, model), sampled, prompts, samples=2, greedy=True)
    for figure, prompt, group in zip(sampled, prompts, together, strict=True):
        assert group == respond(model, Encoder(processor, model), [figure], [prompt], greedy=True)[0] * 2
    assert len({texts[0] for texts in together}) > 2


def test_the_committed_model_is_noisy_but_its_majority_is_not(processor, model) -> None:
    torch.manual_seed(0)
    sampled = sample_figures("test", 60, 1)
    asked = [questions(figure, "main")[0] for figure in sampled]
    texts = respond(
        model, Encoder(processor, model), sampled, [question.phrasings[0] for question in asked], samples=16
    )
    truths = [answer(figure, question) for figure, question in zip(sampled, asked, strict=True)]
    single = (
        sum(extract_answer(text) == truth for group, truth in zip(texts, truths, strict=True) for text in group) / 16
    )
    voted = sum(
        vote(list(map(extract_answer, group))).pseudo_label == truth for group, truth in zip(texts, truths, strict=True)
    )
    assert single < 0.7 * len(sampled)
    assert voted > 0.75 * len(sampled)


def test_a_careful_response_is_worked_out_step_by_step() -> None:
    bars = Figure("bars", (2, 4, 4), ("red", "red", "blue"), (0, 0))
    total, difference = questions(bars, "main", "second")
    assert careful(bars, total) == "2 + 4 = 6 . 6 + 4 = 10 . so \\boxed{10}"
    assert careful(bars, difference) == "2 , 4 , 4 . 4 - 2 = 2 . so \\boxed{2}"


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
@given(figures, randoms)
def test_a_wrong_answer_is_off_by_one_to_three_and_not_negative(figure: Figure, random: Random) -> None:
    for question in questions(figure, "main", "second"):
        value = int(wrong(figure, question, random))
        assert value >= 0
        assert 1 <= abs(value - int(answer(figure, question))) <= MAX_ERROR


def test_glances_and_right_glances_have_their_declared_shares() -> None:
    random = Random(0)
    shown = [(figure, demonstrate_answer(figure, random)) for figure in FIGURES for _ in range(50)]
    glances = [(figure, d) for figure, d in shown if d.response.startswith(GLANCE)]
    rights = [
        d.response == glance(answer(figure, question))
        for figure, d in glances
        if (question := recognise(figure, d.prompt)) is not None
    ]
    assert len(rights) == len(glances)
    assert len(glances) / len(shown) == pytest.approx(GLANCE_SHARE, abs=0.03)
    assert sum(rights) / len(rights) == pytest.approx(GLANCE_RIGHT_SHARE, abs=0.03)


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
    bars = Figure("bars", (2, 4, 4), ("red", "red", "blue"), (0, 0))
    (total,) = questions(bars, "main")
    assert judge_answer(bars, total, "10") == "2 + 4 = 6 . 6 + 4 = 10 . 10 - 10 = 0 . yes"
    assert judge_answer(bars, total, "12") == "2 + 4 = 6 . 6 + 4 = 10 . 10 - 12 = - 2 . no"


def test_a_description_names_kind_colors_and_lengths() -> None:
    assert (
        describe_figure(Figure("bars", (2, 4, 7), ("red", "blue", "red"), (0, 0)))
        == "three bars : red 2 , blue 4 , red 7 ."
    )
    assert (
        describe_figure(Figure("triangle", (3, 4), ("blue",), (0, 0)))
        == "one blue right triangle , 3 wide and 4 tall ."
    )


@unhurried
@given(figures, randoms)
def test_the_unseen_question_is_never_demonstrated(figure: Figure, random: Random) -> None:
    demonstration = demonstrate(figure, random, SHARES)
    assert "how many red" not in f"{demonstration.prompt} {demonstration.response}"


def test_the_warm_start_shares_no_figure_with_the_task() -> None:
    shown = set(sample_figures("warm_start", 900, 0))
    for split in SPLIT_SHARES.keys() - {"warm_start"}:
        assert shown.isdisjoint(sample_figures(split, 300, 0))
