"""Show runs in a browser: curves, votes, responses before and after training, and self-written questions.

Serves a page until Ctrl-C, also while a run continues; curves of several runs share their plots. The page loads nothing
from other sites, and only this machine can open it, unless --host is given.

    mmupt view runs/mmupt_tiny
    mmupt view runs/compare
    mmupt view runs/table/mmupt_tiny/seed_1 runs/table/mmupt_tiny-random/seed_1 --port 8080
"""

import argparse
from collections.abc import Sequence
from pathlib import Path


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Serve the page until Ctrl-C."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a run, synthesis or comparison")
    parser.add_argument("--port", type=int, default=8765, help="port of the page, 0 for any free port (%(default)s)")
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen on (%(default)s, only this machine)"
    )
    arguments = parser.parse_args(words)
    from mmupt.viewer.run_files import RunFiles
    from mmupt.viewer.server import LOOPBACK, make_server

    try:
        runs = [RunFiles(folder) for folder in arguments.runs]
        server = make_server(runs, arguments.host, arguments.port)
    except FileNotFoundError as error:
        parser.exit(1, f"error: {error}\n")
    # A port above 65535 raises OverflowError.
    except (OSError, OverflowError) as error:
        parser.exit(
            1, f"error: cannot listen on {arguments.host}, port {arguments.port}: {error}; give another --port\n"
        )
    if arguments.host not in LOOPBACK:
        print(f"warning: everyone who can reach {arguments.host} can read these runs, their responses and images")
    port = server.server_address[1]
    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    print(f"http://{host}:{port}/ (Ctrl-C to stop)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()
