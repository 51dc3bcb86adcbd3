"""A scripted judge server on loopback that records its requests, and a script that judges honestly."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mmupt.evaluation.judge_client import Judge

MODEL = "some/judge"


@dataclass(frozen=True)
class Reply:
    """A response of the server: a completion with this content, or `body` unchanged."""

    content: str | None = None
    status: int = 200
    body: bytes | None = None

    def encode(self) -> bytes:
        if self.body is not None:
            return self.body
        if self.status != 200:
            return json.dumps({"error": {"message": f"scripted {self.status}"}}).encode()
        message = {"role": "assistant", "content": self.content}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        completion = {"id": "1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice]}
        return json.dumps(completion).encode()


# Maps a prompt and the number of earlier requests for it to the response.
Script = Callable[[str, int], Reply]


@dataclass
class Server:
    """The URL of the judge, and the prompts and request bodies in the order of arrival."""

    url: str
    prompts: list[str] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    listed: int = 0
    at_once: int = 0
    most_at_once: int = 0


@contextmanager
def serve(script: Script) -> Iterator[Server]:
    """Serve the model MODEL until the block ends."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.listed += 1
            self.reply(200, json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}).encode())

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = request["messages"][0]["content"]
            with lock:
                count = server.prompts.count(prompt)
                server.prompts.append(prompt)
                server.requests.append(request)
                server.keys.add(self.headers["Authorization"])
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
            reply = script(prompt, count)
            with lock:
                server.at_once -= 1
            self.reply(reply.status, reply.encode())

        def reply(self, status: int, body: bytes) -> None:
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                # Without this header the client waits at least half a second.
                self.send_header("retry-after-ms", "1")
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                # The client has timed out.
                pass

        def log_message(self, *_: object) -> None:
            """Suppress the log."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{http.server_port}/v1")
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def judge(url: str, **changes: Any) -> Judge:
    """The settings of a client of this server."""
    return replace(Judge(url, MODEL, max_retries=2, timeout=20), **changes)


def last_text(prompt: str) -> str:
    """Return the last response or answer in a prompt."""
    return re.findall(r"<(?:response|answer)>\n(.*?)\n</(?:response|answer)>", prompt, re.DOTALL)[-1]


def asks_agreement(prompt: str) -> bool:
    """Whether a prompt asks to compare an answer with the ground truth, not to extract an answer."""
    return "<truth>" in prompt


def honest(prompt: str, _: int = 0) -> Reply:
    """Extract the text after "I say"; an answer agrees if it equals the ground truth."""
    if asks_agreement(prompt):
        truth = re.findall(r"<truth>\n(.*?)\n</truth>", prompt, re.DOTALL)[-1]
        return Reply(f"Let me see.\n{int(truth == last_text(prompt))}")
    return Reply(f"Answer: {last_text(prompt).partition('I say ')[2] or 'none'}")
