"""Fields of a question are read from rows in veRL's format and in this project's."""

from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from verl_ext.datasets.ground_truth import ground_truth_of
from verl_ext.datasets.message_parts import copied
from verl_ext.rollout.question_fields import (
    choices_of,
    function_arguments,
    image_count,
    question_id,
    text_of,
)


def png(color: str) -> bytes:
    file = BytesIO()
    Image.new("RGB", (8, 8), color).save(file, format="PNG")
    return file.getvalue()


def plain_row(text: str = "Find x.", color: str = "red", **changes: Any) -> dict[str, Any]:
    """A row of geo3k as veRL's RLHFDataset returns it: the image undecoded, with its bytes beside it."""
    image = png(color)
    parts = [
        {"type": "image", "bytes": image, "path": None, "image": Image.open(BytesIO(image))},
        {"type": "text", "text": text},
    ]
    row = {"uid": "u1", "data_source": "hiyouga/geometry3k", "raw_prompt": [{"role": "user", "content": parts}]}
    return {**row, "extra_info": {"index": 0}, "index": 0, **changes}


def test_an_id_is_returned_as_text() -> None:
    assert question_id({"id": "q1"}) == "q1" and question_id({"id": 7}) == "7"


def test_a_row_without_an_id_gets_a_stable_and_unique_one() -> None:
    rows = [
        plain_row(),
        plain_row("Find y."),
        plain_row(color="blue"),
        plain_row(data_source="other"),
        plain_row(raw_prompt=[{"role": "user", "content": "Find x."}]),
    ]
    assert len({question_id(row) for row in rows}) == len(rows)
    assert question_id(plain_row(uid="u2")) == question_id(plain_row(id=None)) == question_id(rows[0])


def test_a_video_is_identified_by_the_pixels_of_its_frames() -> None:
    def row(*colors: str) -> dict[str, Any]:
        frames = [Image.new("RGB", (2, 2), color) for color in colors]
        return plain_row(raw_prompt=[{"role": "user", "content": [{"type": "video", "video": frames}]}])

    assert question_id(row("red", "blue")) == question_id(row("red", "blue")) != question_id(row("blue", "red"))


def test_an_earlier_message_may_call_tools_without_text() -> None:
    calls = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "zoom"}}]}
    question = {"role": "user", "content": "Find x."}
    row = plain_row(raw_prompt=[calls, question])
    assert copied(row["raw_prompt"]) == [calls, question]
    assert question_id(row) == question_id(row) and text_of(row) == "Find x." and image_count(row) == 0


@pytest.mark.parametrize("image", ["/a.png", Image.new("RGB", (2, 2))], ids=["path", "decoded"])
def test_images_without_bytes_are_distinguished_too(image: Any) -> None:
    def row(value: Any) -> dict[str, Any]:
        return plain_row(raw_prompt=[{"role": "user", "content": [{"type": "image", "image": value}]}])

    assert question_id(row(image)) == question_id(row(image)) != question_id(row("/b.png"))


def test_the_text_of_a_row_is_its_user_messages_without_image_placeholders() -> None:
    row = plain_row("Find x.")
    row["raw_prompt"] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello."},
        *row["raw_prompt"],
    ]
    assert text_of(row) == "Hello.\nFind x." and image_count(row) == 1
    assert text_of({"uid": "u1"}) == "" and image_count({"uid": "u1"}) == 0


def test_a_row_without_messages_is_identified_by_its_uid() -> None:
    assert question_id({"uid": "u1"}) == "u1"


@pytest.mark.parametrize(
    ("reward_model", "truth"),
    [
        ({"ground_truth": "7"}, "7"),
        ({"ground_truth": 7}, "7"),
        ({"ground_truth": 0.5}, "0.5"),
        ({"ground_truth": None}, None),
        ({"ground_truth": ["7", "8"]}, None),
        ({"style": "rule"}, None),
        (None, None),
        ("7", None),
    ],
)
def test_the_ground_truth_is_text_or_none(reward_model: Any, truth: str | None) -> None:
    assert ground_truth_of({"reward_model": reward_model}) == truth


def test_a_row_may_lack_ground_truth_and_choices() -> None:
    row = {"id": "q1", "data_source": "s"}
    arguments = function_arguments(row)
    assert (arguments["data_source"], arguments["ground_truth"]) == ("s", None)
    assert arguments["extra_info"]["id"] == "q1" and arguments["extra_info"]["metadata"] is None
    assert ground_truth_of(row) is None and choices_of(row) is None


@pytest.mark.parametrize("choices", ["A. 5 B. 6", {"label": ["A", "B"], "text": ["5", "6"]}, [], None])
def test_choices_without_options_fall_back_to_those_of_extra_info(choices: Any) -> None:
    assert choices_of({"choices": choices}) is None and choices_of({"choices": ["5", 6]}) == ["5", "6"]
    assert choices_of({"choices": choices, "extra_info": {"choices": ["5", "6"]}}) == ["5", "6"]


def test_a_reward_function_gets_the_unchanged_ground_truth_and_extra_info() -> None:
    row = plain_row(reward_model={"ground_truth": ["7", "8"]}, extra_info={"index": 3, "id": "theirs"}, id="ours")
    arguments = function_arguments(row, {"num_turns": 2})
    assert arguments["ground_truth"] == ["7", "8"] and arguments["data_source"] == "hiyouga/geometry3k"
    info = arguments["extra_info"]
    assert (info["index"], info["id"], info["num_turns"], info["metadata"]) == (3, "theirs", 2, None)
