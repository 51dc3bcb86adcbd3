"""The read-only server of `mmupt view`: the files of the page, JSON about the runs, and pictures.

A request names a run by number and its content by keys, never by a path. Other sites cannot read the responses: the
headers make browsers block it, and requests under another host name are refused, which prevents DNS rebinding.
"""

import json
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from mmupt.viewer.run_files import RunFiles

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PAGE_FOLDER = Path(__file__).parent / "page"
PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/view.js": ("view.js", "text/javascript; charset=utf-8"),
    "/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
    "/view.css": ("view.css", "text/css; charset=utf-8"),
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Without a cache, because a later server may show other runs at the same address.
    "Cache-Control": "no-store",
}
# Longest side of a small picture, px.
SMALL = 640

Query = Mapping[str, str]


def _optional(query: Query, name: str) -> int | None:
    return int(query[name]) if name in query else None


def _number(query: Query, name: str) -> int:
    """Read a position in a list; IndexError if it is negative."""
    if (number := int(query[name])) < 0:
        raise IndexError(number)
    return number


def _texts(query: Query, name: str) -> list[str]:
    texts = json.loads(query[name])
    return [str(text) for text in texts] if isinstance(texts, list) else []


# Path of a request about a run -> function that returns the reply.
ANSWERS: Mapping[str, Callable[[RunFiles, Query], Any]] = {
    "/curves": lambda run, query: run.curves(),
    "/groups": lambda run, query: run.votes.groups(_optional(query, "before"), _optional(query, "after")),
    "/group_previews": lambda run, query: run.votes.previews(_texts(query, "keys")),
    "/evaluation_previews": lambda run, query: run.evaluation.previews(_texts(query, "keys")),
    "/group": lambda run, query: run.votes.group(int(query["step"]), _number(query, "number")),
    "/history": lambda run, query: run.votes.history(query["id"]),
    "/evaluation": lambda run, query: run.evaluation.questions(),
    "/evaluated": lambda run, query: run.evaluation.question(_number(query, "pair"), query["id"]),
    "/sheet": lambda run, query: run.sheet(query["sheet"]),
    "/written": lambda run, query: run.written(query["sheet"], _number(query, "number")),
}


def run_names(folders: Sequence[Path]) -> list[str]:
    """Return the names of run folders, with the parents in which they differ if names repeat.

    >>> run_names([Path("/runs/table/mmupt_tiny/seed_1"), Path("/runs/table/mmupt_tiny-random/seed_1")])
    ['mmupt_tiny/seed_1', 'mmupt_tiny-random/seed_1']
    """
    names = [folder.name for folder in folders]
    if len({*names}) == len({*folders}):
        return names
    parent = Path(os.path.commonpath(folders))
    return [str(folder.relative_to(parent)) if folder != parent else folder.name for folder in folders]


def make_server(runs: Sequence[RunFiles], host: str = "127.0.0.1", port: int = 0) -> ThreadingHTTPServer:
    """Make a server of these runs; `serve_forever` starts it.

    Args:
        runs: the runs to show.
        host: the address to listen on. Other host names are refused only if it is one of LOOPBACK.
        port: 0 for any free port.

    Raises:
        OSError: the port is taken, or this machine does not have the address.
    """

    class Handler(_Handler):
        served = runs
        any_host = host not in LOOPBACK

    server_class = _Server6 if ":" in host else _Server
    return server_class((host, port), Handler)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Browsers close connections when they leave the page.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    """Answers GET requests."""

    protocol_version = "HTTP/1.1"
    served: Sequence[RunFiles]
    any_host: bool

    def do_GET(self) -> None:
        if not (self.any_host or _is_loopback(self.headers.get("Host", ""))):
            self._send(403, "text/plain; charset=utf-8", b"open this page as http://localhost\n")
            return
        try:
            parts = urlsplit(self.path)
            kind, content = self._answer(parts.path, dict(parse_qsl(parts.query)))
        except (KeyError, IndexError):
            self._send(404, "text/plain; charset=utf-8", b"this run has no such page or entry\n")
        # A file cannot be read: the page shows the error, and the server continues.
        except (ValueError, OSError) as error:
            self._send(500, "text/plain; charset=utf-8", f"{error}\n".encode(errors="replace"))
        else:
            self._send(200, kind, content)

    def _answer(self, path: str, query: Query) -> tuple[str, bytes]:
        if path in PAGE:
            name, kind = PAGE[path]
            return kind, (PAGE_FOLDER / name).read_bytes()
        if path == "/runs":
            names = run_names([run.folder for run in self.served])
            return _json([{**run.summary(), "name": name} for run, name in zip(self.served, names, strict=True)])
        run = self.served[_number(query, "run")]
        if path == "/picture":
            longest_side = None if "full" in query else SMALL
            return run.picture(query["source"], query["id"], _number(query, "image"), longest_side)
        return _json(ANSWERS[path](run, query))

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        headers = {**HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing, because the page makes many requests."""


def _is_loopback(host: str) -> bool:
    try:
        return urlsplit(f"//{host}").hostname in LOOPBACK
    # Raised for example for "[".
    except ValueError:
        return False


def _json(content: Any) -> tuple[str, bytes]:
    # Browsers cannot parse NaN.
    return "application/json", json.dumps(_finite(content)).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
