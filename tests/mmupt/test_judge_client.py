"""The judge client sends each prompt once, retries transient failures, and saves replies."""

import json
import re
import socket
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from judge_server import MODEL, Reply, honest, judge, last_text, serve
from omegaconf import OmegaConf

from mmupt.evaluation.judge_client import Judge, JudgeError, ask, read_kept

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_transient_failures_are_retried(tmp_path: Path, status: int) -> None:
    with serve(lambda _, count: Reply("1") if count == 2 else Reply(status=status)) as server:
        replies = ask(judge(server.url), ["a"], tmp_path / "kept.jsonl")
    assert replies.texts == {"a": "1"} and server.prompts == ["a"] * 3


def test_a_timeout_is_retried(tmp_path: Path) -> None:
    def slow_at_first(_: str, count: int) -> Reply:
        if count == 0:
            time.sleep(2)
        return Reply("1")

    with serve(slow_at_first) as server:
        assert ask(judge(server.url, timeout=0.5), ["a"], tmp_path / "kept.jsonl").texts == {"a": "1"}


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply(status=500), "InternalServerError: .*scripted 500"),
        (Reply(status=429), "RateLimitError: .*scripted 429"),
        (Reply(status=400), "BadRequestError: .*scripted 400"),
        (Reply(body=b"<html>"), "JSONDecodeError|no completion"),
        (Reply(body=b"[]"), "no completion"),
        (Reply(body=b"{}"), "no completion"),
        (Reply(body=b'{"choices": []}'), "no completion"),
        (Reply(body=b'{"choices": [{"message": {"content": [1]}}]}'), "no text"),
        (Reply(body=b'{"choices": 7}'), "no completion"),
    ],
)
def test_a_permanent_failure_is_reported_and_other_prompts_are_answered(tmp_path: Path, reply: Reply, why: str) -> None:
    kept = tmp_path / "kept.jsonl"
    with serve(lambda prompt, _: reply if prompt == "b" else Reply("1")) as server:
        replies = ask(judge(server.url), ["a", "b", "c"], kept)
    assert replies.texts == {"a": "1", "c": "1"} and list(replies.failures) == ["b"]
    assert re.search(why, replies.failures["b"]) and len(read_kept(kept)) == 2


def test_concurrent_requests_are_limited(tmp_path: Path) -> None:
    def slow(_: str, count: int) -> Reply:
        time.sleep(0.05)
        return Reply("1")

    with serve(slow) as server:
        ask(judge(server.url, requests=3), map(str, range(12)), tmp_path / "kept.jsonl")
    assert 2 <= server.most_at_once <= 3


def test_the_api_key_comes_from_the_named_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "a secret")
    with serve(honest) as server:
        ask(judge(server.url, key_variable="A_KEY"), ["<response>\nI say 1\n</response>"], tmp_path / "kept.jsonl")
    assert server.keys == {"Bearer a secret"}
    assert "secret" not in (tmp_path / "kept.jsonl").read_text()


def test_a_missing_endpoint_fails_at_once(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        start = time.monotonic()
        with pytest.raises(JudgeError, match=f"no judge answers at {url} .*Connection error"):
            ask(judge(url), ["a"], tmp_path / "kept.jsonl")
    assert time.monotonic() - start < 5 and not (tmp_path / "kept.jsonl").exists()


def test_an_unserved_model_fails_before_any_request(tmp_path: Path) -> None:
    with serve(honest) as server, pytest.raises(JudgeError, match=r"/v1 does not serve other/model, but some/judge"):
        ask(judge(server.url, model="other/model"), ["a"], tmp_path / "kept.jsonl")
    assert server.prompts == []


def test_reply_keys_depend_on_model_prompt_and_settings() -> None:
    client = judge("http://here/v1")
    others = [replace(client, model="other"), replace(client, max_tokens=7)]
    assert len({client.key("a"), client.key("b"), *(other.key("a") for other in others)}) == 4
    assert replace(client, url="http://there/v1", requests=1).key("a") == client.key("a")


def test_after_a_kill_only_missing_replies_are_requested(tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    prompts = [f"<response>\nI say {number}\n</response>" for number in range(10)]
    with serve(
        lambda prompt, _: (time.sleep(30), Reply("late"))[1] if last_text(prompt)[-1] > "4" else honest(prompt)
    ) as server:
        program = (
            "import sys\nfrom pathlib import Path\nfrom mmupt.evaluation.judge_client import Judge, ask\n"
            "ask(Judge(sys.argv[1], sys.argv[2]), sys.argv[4:], Path(sys.argv[3]))"
        )
        child = subprocess.Popen([sys.executable, "-c", program, server.url, MODEL, str(kept), *prompts], cwd=ROOT)
        try:
            deadline = time.monotonic() + 60
            while len(read_kept(kept)) < 5 and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            child.kill()
            child.wait()
    assert len(read_kept(kept)) == 5
    # Simulate a line that the kill cut.
    kept.write_bytes(kept.read_bytes()[:-10])
    with serve(honest) as server:
        replies = ask(judge(server.url), prompts, kept)
    assert len(server.prompts) == 6 and replies.failures == {}
    assert [replies.texts[prompt] for prompt in prompts] == [f"Answer: {number}" for number in range(10)]
    assert len(read_kept(kept)) == 10


def test_lines_that_are_not_replies_are_ignored(tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    good = json.dumps({"key": "k", "reply": "r"}).encode()
    bad = [b"", b"[]", b"7", b'{"key": "a"}', b'{"key": 1, "reply": "r"}', b'{"key": "a", "reply": null}', b"\xff"]
    kept.write_bytes(b"\n".join([*bad, b"[" * 100_000, good, good[:-3]]))
    assert read_kept(kept) == {"k": "r"}


def parts(*content: object) -> Reply:
    """A reply whose content is a list of parts."""
    message = {"role": "assistant", "content": content, "reasoning_content": "7"}
    return Reply(body=json.dumps({"choices": [{"index": 0, "message": message}]}).encode())


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (parts({"type": "text", "text": "so\n"}, {"type": "text", "text": "1"}), "so\n1"),
        (parts({"type": "reasoning", "text": "or 0"}, {"type": "output_text", "text": "1"}), "1"),
        (parts({"type": "thinking", "thinking": [{"type": "text", "text": "0"}]}), ""),
        (parts(), ""),
    ],
)
def test_a_reply_in_parts_is_joined_without_reasoning(tmp_path: Path, reply: Reply, text: str) -> None:
    with serve(lambda *_: reply) as server:
        assert ask(judge(server.url), ["a"], tmp_path / "kept.jsonl").texts == {"a": text}


@pytest.mark.parametrize("part", ["1", {"text": "1"}, {"type": "text"}, {"type": "text", "text": 1}])
def test_malformed_parts_are_a_failure(tmp_path: Path, part: object) -> None:
    with serve(lambda *_: parts(part)) as server:
        assert "no text" in ask(judge(server.url), ["a"], tmp_path / "kept.jsonl").failures["a"]


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ({}, {"temperature": 0.0, "max_tokens": 256}),
        ({"temperature": None, "max_tokens": None, "max_completion_tokens": 900}, {"max_completion_tokens": 900}),
        ({"temperature": 1.0, "max_tokens": None}, {"temperature": 1.0}),
    ],
)
def test_a_request_sends_all_settings_that_are_not_none(
    tmp_path: Path, settings: dict[str, Any], sent: dict[str, Any]
) -> None:
    with serve(lambda *_: Reply("1")) as server:
        ask(judge(server.url, **settings), ["a"], tmp_path / "kept.jsonl")
    (request,) = server.requests
    assert {name: request[name] for name in request.keys() - {"model", "messages"}} == sent


def test_an_endpoint_that_cannot_list_its_models_can_be_used(tmp_path: Path) -> None:
    with serve(lambda *_: Reply("1")) as server:
        replies = ask(judge(server.url, model="another", list_models=False), ["a"], tmp_path / "kept.jsonl")
    assert replies.texts == {"a": "1"} and server.listed == 0


def test_command_line_and_configuration_have_the_settings_of_a_judge() -> None:
    config = OmegaConf.load(ROOT / "recipes/mmupt/evaluation/config/evaluation.yaml").judge
    defaults = {field.name: field.default for field in fields(Judge)}
    assert {name: value for name, value in config.items() if name not in ("url", "model")} == {
        name: defaults[name] for name in config if name not in ("url", "model")
    }
    process = subprocess.run(
        [sys.executable, "-m", "mmupt", "score", "missing.jsonl", "--judge-url", "http://localhost:1/v1",
         "--judge-model", "m", "--judge-temperature", "null", "--judge-max-tokens", "many"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert "argument --judge-max-tokens: invalid int or null value: 'many'" in process.stderr
