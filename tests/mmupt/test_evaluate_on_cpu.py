"""`mmupt eval` with vLLM on the CPU: every question is answered once, even after a kill."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from evaluation_rows import MODEL, ROOT, ROWS
from full_stack import HANG_SECONDS

from mmupt.benchmarks import BENCHMARKS
from mmupt.compose import as_override
from mmupt.datasets import data_set
from mmupt.evaluation.response_files import Response, read_whole
from mmupt_data.figure_task import write_figures as figures
from mmupt_data.writer import write_dataset


def command(*overrides: str) -> list[str]:
    return [sys.executable, "-m", "mmupt", "eval", f"model={MODEL}", "preset=tiny", *overrides]


@pytest.mark.full_stack
def test_the_tiny_model_answers_every_question_on_a_cpu(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"test": ROWS}, {})
    keys = [
        f"files={{test:{tmp_path}/test.parquet}}",
        f"output={tmp_path}",
        "samples=3",
        "max_tokens=8",
        "max_model_len=256",
        "forbidden_openings=[so]",
    ]
    subprocess.run(command(*keys), cwd=ROOT, check=True, timeout=HANG_SECONDS)
    responses = read_whole(tmp_path / "test.jsonl")
    expected = [(row.id, mode, i) for row in ROWS for mode, n in (("greedy", 1), ("sample", 3)) for i in range(n)]
    assert sorted((r.id, r.mode, r.sample) for r in responses) == sorted(expected)
    assert all(1 <= response.tokens <= 8 for response in responses)
    assert not any(response.response.split()[:1] == ["so"] for response in responses)
    assert json.loads((tmp_path / "test.scores.json").read_text())[0]["questions"] == 3


@pytest.mark.full_stack
def test_a_killed_evaluation_continues_with_two_replicas_and_repeats_nothing(tmp_path: Path) -> None:
    figures(tmp_path / "figures", train=3, validation=3, test=96)
    keys = [f"files={{test:{tmp_path}/figures/test.parquet}}", f"output={tmp_path}/out"]
    growing = tmp_path / "out" / "test.partial.jsonl"
    process = subprocess.Popen(command(*keys), cwd=ROOT)
    deadline = time.monotonic() + HANG_SECONDS
    while not growing.is_file() or growing.read_text().count("\n") < 20:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    made = growing.read_text().split("\n")[1:-1]
    assert 19 <= len(made) < 2 * 96
    subprocess.run(command(*keys, "replicas=2"), cwd=ROOT, check=True, timeout=HANG_SECONDS)
    responses = read_whole(tmp_path / "out" / "test.jsonl")
    assert len({(one.id, one.mode, one.sample) for one in responses}) == len(responses) == 96 * 9
    assert {Response(**one) for line in made for one in json.loads(line)} <= set(responses)


@pytest.mark.full_stack
def test_every_benchmark_goes_from_its_hub_columns_to_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "mmupt_data"))
    from hub_shaped import write

    files = {}
    for name in ("mathvista", "mathvision", "mathverse", "wemath"):
        data_set(name).prepare(tmp_path / name, str(write(tmp_path / "source" / name, name, rows=8)))
        files[name] = str(tmp_path / name / f"{BENCHMARKS[name].split}.parquet")
    keys = [as_override("files", files), f"output={tmp_path / 'out'}", "samples=2", "max_model_len=1024"]
    done = subprocess.run(command(*keys), cwd=ROOT, check=True, timeout=HANG_SECONDS, capture_output=True, text=True)
    for name in files:
        (scores,) = json.loads((tmp_path / "out" / f"{name}.scores.json").read_text())
        assert scores["benchmark"] == name and scores["rule"] == BENCHMARKS[name].rules[0].name
        assert scores["accuracy"][scores["rule"]]["greedy"]["questions"] == 8
        assert f"## {name}" in done.stdout
    assert "paper: MM-UPT" in (tmp_path / "out" / "results.md").read_text()
