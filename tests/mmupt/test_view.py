"""The server of `mmupt view`: its replies, and the requests that it refuses."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from PIL import Image
from view_runs import HOSTILE, group, question_rows, write_run

from mmupt.cli import main
from mmupt.evaluation.response_files import Response, write_responses
from mmupt.reports.encoded_pictures import encode_anew
from mmupt.viewer import voted_groups
from mmupt.viewer.row_pictures import RowPictures
from mmupt.viewer.run_files import RunFiles
from mmupt.viewer.server import make_server, run_names
from mmupt_data.row_schema import prompts_path
from mmupt_data.writer import write_dataset
from verl_ext.votes.vote_files import write_votes

Get = Callable[..., tuple[int, dict[str, str], bytes]]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("view"))


@pytest.fixture(scope="module")
def get(run_folder: Path) -> Iterator[Get]:
    """A function that sends a request to the run's server and returns status, headers and content."""
    server = make_server([RunFiles(run_folder)])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def ask(path: str, host: str | None = None, **query: Any) -> tuple[int, dict[str, str], bytes]:
        url = f"http://127.0.0.1:{server.server_address[1]}{path}?{urlencode(query)}"
        request = urllib.request.Request(url, headers={} if host is None else {"Host": host})
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, dict(response.headers), response.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()

    yield ask
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_page_may_load_only_its_own_files_and_run_only_its_own_script(get: Get) -> None:
    status, headers, content = get("/")
    policy = headers["Content-Security-Policy"]
    assert status == 200 and "default-src 'none'" in policy and "script-src 'self';" in policy
    assert "unsafe" not in policy and headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    # Rows of another run may have the same ids.
    assert headers["Cache-Control"] == "no-store"
    for name in ("/view.js", "/charts.js", "/view.css"):
        status, _, more = get(name)
        assert status == 200
        content += more
    assert b"http://" not in content.replace(b"http://www.w3.org/2000/svg", b"") and b"https://" not in content


@pytest.mark.parametrize("path", ["/../server.py", "/page/../../cli.py", "/etc/passwd", "//etc/passwd", "/%2e%2e/x"])
def test_requests_are_never_used_as_paths(get: Get, path: str) -> None:
    assert get(path)[0] == 404
    assert get(path, run=0)[0] == 404


@pytest.mark.parametrize(
    ("path", "query"), [("/group", {"step": "x", "number": 0}), ("/group_previews", {"keys": "["})]
)
def test_the_server_survives_malformed_requests(get: Get, path: str, query: dict[str, Any]) -> None:
    assert get(path, run=0, **query)[0] == 500
    assert get("/runs")[0] == 200


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/group", {"step": 99, "number": 0}),
        ("/group", {"step": 1, "number": 99}),
        ("/group", {}),
        ("/evaluated", {"pair": 0, "id": "nobody"}),
        ("/evaluated", {"pair": 1, "id": "q0"}),
        ("/evaluated", {"pair": -1, "id": "q0"}),
        ("/picture", {"source": "evaluation.7", "id": "q0", "image": 0}),
        ("/sheet", {"sheet": "../.."}),
        ("/picture", {"source": "votes", "id": "nobody", "image": 0}),
        ("/picture", {"source": "votes", "id": "q0", "image": 7}),
        ("/picture", {"source": "../..", "id": "q0", "image": 0}),
    ],
)
def test_a_request_for_missing_content_returns_404(get: Get, path: str, query: dict[str, Any]) -> None:
    assert get(path, run=0, **query)[0] == 404


def test_a_picture_of_votes_in_a_run_without_votes_is_a_key_error(tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    with pytest.raises(KeyError):
        RunFiles(tmp_path).picture("votes", "q0", 0, None)


@pytest.mark.parametrize("run", [-1, 1, 99])
def test_only_the_runs_of_the_command_line_are_served(get: Get, run: int) -> None:
    assert get("/groups", run=run)[0] == 404


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 200), ("127.0.0.1:80", 200), ("[::1]:9", 200), ("evil.example", 403), ("", 403), ("[", 403)],
)
def test_requests_under_another_host_name_are_refused(get: Get, host: str, status: int) -> None:
    assert get("/runs", host=host)[0] == status


def test_model_text_is_escaped_in_every_html_field(get: Get) -> None:
    for path, query in (
        ("/group", {"step": 1, "number": 0}),
        ("/history", {"id": "q0"}),
        ("/evaluated", {"pair": 0, "id": "q0"}),
        ("/written", {"sheet": "round_1/synthesis", "number": 0}),
        ("/group_previews", {"keys": '["1.0"]'}),
        ("/evaluation_previews", {"keys": '["0.q0"]'}),
    ):
        status, headers, content = get(path, run=0, **query)
        assert status == 200 and headers["Content-Type"] == "application/json"
        for html in html_of(json.loads(content)):
            assert "<script" not in html and "<img" not in html and "<image>" not in html


def html_of(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from html_of(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from html_of(item, name)
    elif name.endswith("html") and value is not None:
        yield value


def test_a_comparison_shows_all_questions_of_all_files_with_its_answer_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for side, answer in (("base", "3"), ("trained", "4")):
        for name in ("one", "two"):
            rows = question_rows(tmp_path / "pictures", 104)
            rows = [replace(row, data_source=name) for row in rows]
            write_dataset(tmp_path / name, {name: rows}, {})
            text = f"{HOSTILE} <answer>{answer}</answer>, or \\boxed{{5}}"
            responses = [Response(row.id, "greedy", 0, text, 5) for row in rows]
            parameters = {"model": side, "data": {str(prompts_path(tmp_path / name, name)): "sha"}, "samples": 0}
            write_responses(tmp_path / side / f"{name}.jsonl", responses, parameters)
    main(["compare", "base", "trained", "--output", "compared", "--extraction", "answer_tag"])
    run = RunFiles(Path("compared"))
    assert run.summary()["sides"] == ["A: base", "B: trained"]
    questions = run.evaluation.questions()
    assert len(questions) == 2 * 104 and {question["benchmark"] for question in questions} == {"one", "two"}
    # The settings recorded with the responses extract boxed answers.
    assert {(question["before"]["right"], question["after"]["right"]) for question in questions} == {(False, True)}
    last = run.evaluation.question(1, "q103")
    assert last["after"][0]["answer_html"] == "4" and "<script" not in last["after"][0]["html"]
    assert run.picture("evaluation.1", "q103", 0, None)[0] == "image/png"


def test_run_names_tell_folders_of_the_same_name_apart() -> None:
    table = Path("/runs/table")
    assert run_names([table / "mmupt_tiny"]) == ["mmupt_tiny"]
    assert run_names([table / "a", Path("/other/b"), table / "a"]) == ["a", "b", "a"]
    same = [table / "mmupt_tiny" / "seed_1", table / "mmupt_tiny-random" / "seed_1"]
    assert run_names(same) == ["mmupt_tiny/seed_1", "mmupt_tiny-random/seed_1"]
    assert run_names([Path("/runs"), Path("/runs/a/runs")]) == ["runs", "a/runs"]


def test_pictures_are_reencoded_small_or_in_full_size(tmp_path: Path) -> None:
    rows = question_rows(tmp_path / "pictures", 3, size=1_000)
    write_dataset(tmp_path / "train", {"train": rows}, {})
    pictures = RowPictures([prompts_path(tmp_path / "train", "train"), tmp_path / "gone.parquet"])
    for longest_side, size in ((640, 640), (None, 1_000)):
        kind, content = pictures.picture("q2", 0, longest_side)
        assert kind == "image/png" and Image.open(BytesIO(content)).size == (size, size)
    assert pictures.count("q2") == 1 and pictures.count("nobody") == 0


def test_drawings_are_sent_as_png_and_photos_as_jpeg() -> None:
    photo = Image.merge("RGB", [Image.effect_noise((300, 200), 90) for _ in range(3)])
    for image, kind in ((photo, "image/jpeg"), (Image.new("RGB", (300, 200), "red"), "image/png")):
        file = BytesIO()
        image.save(file, "PNG")
        assert encode_anew(file.getvalue())[0] == kind


def test_groups_come_in_whole_steps_latest_first(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voted_groups, "GROUPS_PER_CHUNK", 7)
    run = RunFiles(run_folder)
    first = run.votes.groups()
    steps = [fields[0] for fields in first["groups"]]
    assert steps == [3] * 6 + [2] * 6 and first["before"] == 2
    rest = run.votes.groups(before=first["before"])
    assert [fields[0] for fields in rest["groups"]] == [1] * 6 and rest["before"] is None
    assert run.votes.groups(after=3) == {"fields": first["fields"], "groups": [], "before": None}


def test_a_rewritten_step_is_reread(tmp_path: Path) -> None:
    run = RunFiles(write_run(tmp_path, steps=1, questions=2))
    assert len(run.votes.groups()["groups"]) == 2
    rows = [group("other", "Find $y$.", ["1", "1", None]).row(1)]
    write_votes(tmp_path / "run" / "votes" / "1.parquet", rows, [])
    assert [fields[2] for fields in run.votes.groups()["groups"]] == ["other"]


def test_the_majority_flips_with_the_answer_and_not_with_its_notation(tmp_path: Path) -> None:
    answers = {1: "0.5", 2: r"\frac{1}{2}", 3: "4", 4: None}
    for step, answer in answers.items():
        row = group("q", "Find $y$.", [answer, answer, None]).row(step)
        write_votes(tmp_path / "votes" / f"{step}.parquet", [row], [])
    history = RunFiles(tmp_path).votes.history("q")
    assert [vote["flipped"] for vote in history] == [False, False, True, True]


def test_the_majority_does_not_flip_between_the_letter_and_the_text_of_an_option(tmp_path: Path) -> None:
    for step, answer in enumerate(("A", "0.5 cm", "B"), start=1):
        row = group("q", "Find $y$.", [answer, answer, None]).row(step)
        row["choices"] = ["0.5 cm", "2 cm"]
        write_votes(tmp_path / "votes" / f"{step}.parquet", [row], [])
    assert [vote["flipped"] for vote in RunFiles(tmp_path).votes.history("q")] == [False, False, True]


def test_a_nan_reward_is_sent_as_null(tmp_path: Path) -> None:
    row = group("q", "Find $y$.", ["1", "1", None]).row(1)
    row["responses"][0]["reward"] = float("nan")
    write_votes(tmp_path / "votes" / "1.parquet", [row], [])
    server = make_server([RunFiles(tmp_path)])
    thread = threading.Thread(target=server.handle_request, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}/group?run=0&step=1&number=0"
    with urllib.request.urlopen(url, timeout=10) as response:
        content = json.loads(response.read(), parse_constant=pytest.fail)
    assert content["responses"][0]["reward"] is None
    server.server_close()


def test_an_unreadable_vote_file_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path, steps=1)
    (run / "votes" / "2.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"2\.parquet is not a parquet file"):
        RunFiles(run).votes.groups()


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"comparisons": 1}', '{"comparisons": [1]}', '{"comparisons": [{"a": {"file": 1}}]}']
)
def test_a_foreign_comparison_is_named_and_the_rest_of_the_run_is_shown(content: str, tmp_path: Path) -> None:
    row = group("q", "Find $y$.", ["1", "1", None]).row(1)
    write_votes(tmp_path / "votes" / "1.parquet", [row], [])
    (tmp_path / "compare.json").write_text(content)
    run = RunFiles(tmp_path)
    summary = run.summary()
    assert (summary["steps"], summary["sides"]) == (1, [])
    assert len(run.votes.groups()["groups"]) == 1
    (problem,) = summary["problems"]
    assert problem.startswith(f"{tmp_path}/compare.json is damaged, or was not written by mmupt (")
    with pytest.raises(ValueError, match=r"compare\.json is damaged"):
        run.evaluation.questions()


@pytest.mark.parametrize(
    "config",
    ["reward: {reward_kwargs: {vo", "reward: {reward_kwargs: vo}", 'reward: {reward_kwargs: {vote: "${cut}"}}'],
)
def test_a_damaged_config_is_named(config: str, tmp_path: Path) -> None:
    write_votes(tmp_path / "votes" / "1.parquet", [group("q", "Find $y$.", ["1", "1", None]).row(1)], [])
    (tmp_path / "config.yaml").write_text(config)
    run = RunFiles(tmp_path)
    assert run.summary()["problems"] == [] and run.votes.group(1, 0)["id"] == "q"
    with pytest.raises(ValueError, match=r"config\.yaml is damaged"):
        run.votes.history("q")


def test_a_folder_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["view", str(tmp_path)])
    assert ended.value.code == 1
    assert f"error: {tmp_path} is not the folder of a run: it has no votes/" in capsys.readouterr().err


def test_the_error_about_an_unusable_port_names_the_port(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = make_server([RunFiles(run_folder)])
    port = server.server_address[1]
    with pytest.raises(SystemExit):
        main(["view", str(run_folder), "--port", str(port)])
    assert f"port {port}: " in capsys.readouterr().err
    server.server_close()
    with pytest.raises(SystemExit):
        main(["view", str(run_folder), "--port", "99999"])
    assert "port 99999: " in capsys.readouterr().err


@pytest.mark.parametrize(("words", "warns"), [([], False), (["--host", "0.0.0.0"], True)])
def test_the_server_listens_on_loopback_unless_told_otherwise(
    run_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    warns: bool,
) -> None:
    addresses = []

    def interrupted(server: Any) -> None:
        addresses.append(server.server_address[0])
        raise KeyboardInterrupt

    monkeypatch.setattr("http.server.ThreadingHTTPServer.serve_forever", interrupted)
    assert main(["view", str(run_folder), "--port", "0", *words]) == 0
    output = capsys.readouterr().out
    assert addresses == ["0.0.0.0" if warns else "127.0.0.1"]
    assert ("everyone who can reach" in output) == warns and "(Ctrl-C to stop)" in output
