"""The model sees the text of a row as characters, even where a trainer or tokenizer would interpret it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from verl_ext.control_text import MEDIA, control_texts, control_tokens, escaped, plain_messages

TOKENIZER = AutoTokenizer.from_pretrained("recipes/mmupt/tiny/model")
TOKENS = control_tokens(TOKENIZER)
PIECES = st.lists(st.sampled_from([*MEDIA, *TOKENS, "<", "|>", "im_end", " ", "what ?", "<|", "image"])).map("".join)


def test_the_tokens_come_from_the_tokenizer() -> None:
    assert {"<|im_end|>", "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<unk>"} <= set(TOKENS)


@given(PIECES)
def test_escaped_text_has_no_control_token_and_no_media_placeholder(text: str) -> None:
    plain = escaped(text, TOKENS)
    assert not any(marker in plain for marker in (*MEDIA, *TOKENS))
    unknown = TOKENIZER.convert_tokens_to_ids("<unk>")
    assert set(TOKENIZER(plain, add_special_tokens=False)["input_ids"]).isdisjoint(
        set(TOKENIZER.convert_tokens_to_ids(list(TOKENS))) - {unknown}
    )
    assert escaped(plain, TOKENS) == plain


@given(PIECES)
def test_escaping_adds_only_spaces_and_leaves_other_text_alone(text: str) -> None:
    assert escaped(text, TOKENS).replace(" ", "") == text.replace(" ", "")
    if not control_texts(text, TOKENS) and "<image>" not in text:
        assert escaped(text, TOKENS) == text


@given(PIECES, st.integers(0, 3))
def test_a_message_has_one_placeholder_per_image_and_no_other(text: str, images: int) -> None:
    (message,) = plain_messages([{"role": "user", "content": text}], images, TOKENS)
    assert message["content"].count("<image>") == images
    assert not any(marker in message["content"] for marker in ("<video>", "<audio>", *TOKENS))


def test_the_first_placeholders_mark_images_and_missing_ones_are_prepended_to_the_question() -> None:
    messages = [
        {"role": "system", "content": "look at <image>"},
        {"role": "user", "content": "<image> has a <image> tag"},
    ]
    contents = [message["content"] for message in plain_messages(messages, 2)]
    assert contents == ["look at <image>", "<image> has a < image> tag"]
    assert [message["content"] for message in plain_messages(messages, 4)][1] == "<image><image> has a <image> tag"
    assert plain_messages([{"role": "user", "content": "is <image> a tag ?"}], 0)[0]["content"] == "is < image> a tag ?"


@pytest.mark.parametrize("text", ["a < b | c > d", "|x| < 3", "<a|b>", "<image1>", "<b>bold</b>", "x<y>z"])
def test_other_text_is_not_taken_for_control_text(text: str) -> None:
    assert control_texts(text) == [] and escaped(text) == text
