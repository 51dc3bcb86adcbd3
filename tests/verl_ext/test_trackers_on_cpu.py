"""The trackers of veRL with their real packages, offline: one run across restarts, no step twice, groups with pictures.

`pytest tests/verl_ext/test_trackers_on_cpu.py` tests the trackers that are installed and skips the others.
"""

import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from PIL import Image
from verl.utils.tracking import Tracking

from mmupt.runtime.environment import logger_variables
from verl_ext.config_defaults import SAMPLER
from verl_ext.trackers import group_tables
from verl_ext.trackers.group_tables import GroupTables, as_markdown, problem_of, table_row
from verl_ext.trackers.runs import TrackerRecord

METRIC = "vote/majority_ratio"
HOSTILE = "<script>alert(1)</script> | *x* | \ud800 [link](http://a) so \\boxed{7}"
PACKAGES = {"wandb": "wandb", "mlflow": "mlflow", "swanlab": "swanlab", "trackio": "trackio"}


def groups(step: int) -> list[dict[str, Any]]:
    """Groups as in votes files: with an image, without one, with a row that no longer exists, and one too many."""
    answers = [("7", 0, 1.0), ("7", 0, 1.0), ("8", 1, 0.0), (None, None, 0.0)]
    responses = [
        {"text": HOSTILE, "answer": answer, "class": number, "reward": reward, "trained": True, "correct": None}
        for answer, number, reward in answers
    ]
    group = {
        "step": step,
        "question": "Find $x$ | <b>now</b>.",
        "responses": responses,
        "pseudo_label": "7",
        "ground_truth": "7",
        "majority_ratio": 0.5,
        "tied": False,
        "no_answer": 1,
        "label_correct": True,
    }
    return [{"id": id_, **group} for id_ in ("with", "without", "gone", "a fourth, which is too many")]


@pytest.fixture
def train_file(tmp_path: Path) -> str:
    encoded = io.BytesIO()
    Image.new("RGB", (600, 300), "red").save(encoded, "PNG")
    rows = [
        {
            "id": id_,
            "prompt": [{"role": "user", "content": "Find x."}],
            "images": [{"bytes": image} for image in images],
        }
        for id_, images in (("with", [encoded.getvalue(), b"no image"]), ("without", []))
    ]
    file = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file)
    return str(file)


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Remove the user's settings of trackers, and work offline."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in [*os.environ]:
        if name.startswith(("WANDB", "MLFLOW", "SWANLAB", "TRACKIO", "VERL_FILE", "TENSORBOARD")):
            monkeypatch.delenv(name)
    run = tmp_path / "run"
    names = [*PACKAGES, "file"]
    offline = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "SWANLAB_MODE": "offline"}
    for name, value in (
        offline | logger_variables(names, run, {}) | {"TENSORBOARD_DIR": str(run / "tensorboard")}
    ).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    yield run
    if "wandb" in sys.modules:
        # The tracker keeps the folder of a process's first run.
        sys.modules["wandb"].teardown()


def start(
    name: str | list[str], run: Path, steps: range, train_file: str, *, validates_first: bool = True, **settings: Any
) -> Tracking:
    """Start veRL's tracking as its trainer does, and log some steps; the first one is a validation."""
    sampler = {"path": SAMPLER[0], "name": SAMPLER[1]}
    config = {
        "trainer": {
            "val_before_train": validates_first,
            "v1": {"sampler": {"custom_sampler": sampler, "sampler_kwargs": {"trackers": str(run / "trackers.json")}}},
        },
        "settings": settings,
    }
    tracking = Tracking(
        "mmupt", "my_run", [name] if isinstance(name, str) else name, OmegaConf.to_container(OmegaConf.create(config))
    )
    tables = GroupTables(3, 2, [train_file])
    for step in steps:
        if tables.is_due(step):
            tables.log(tracking.logger, groups(step), step)
        tracking.log({METRIC: step / 100}, step)
    return tracking


def logged(name: str, run: Path) -> tuple[set[str], list[int], dict[int, float]]:
    """Return a tracker's run ids, the metric's steps in file order, and its values by step."""
    return READERS[name](run)


def _wandb_records(file: Path) -> Iterator[bytes]:
    """Yield the records of wandb's offline file, which is in LevelDB's log format after seven bytes."""
    content, at, record = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        left = 32_768 - at % 32_768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        # A complete record, or the last part of one.
        if kind in (1, 4):
            yield record
            record = b""


def _wandb(run: Path) -> tuple[set[str], list[int], dict[int, float]]:
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    # A file is complete once the service that writes it has ended.
    wandb.teardown()
    ids, steps, values = set(), [], {}
    for file in sorted((run / "wandb").glob("offline-run-*/*.wandb")):
        for content in _wandb_records(file):
            record = Record()
            record.ParseFromString(content)
            if record.HasField("run"):
                ids.add(record.run.run_id)
            if record.HasField("history"):
                items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                if METRIC in items:
                    steps.append(int(record.history.step.num))
                    values[steps[-1]] = json.loads(items[METRIC])
    return ids, steps, values


def _mlflow(run: Path) -> tuple[set[str], list[int], dict[int, float]]:
    from mlflow import MlflowClient

    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    ids = {each.info.run_id for each in client.search_runs(experiments)}
    history = [point for run_id in ids for point in client.get_metric_history(run_id, METRIC)]
    return ids, [point.step for point in history], {point.step: point.value for point in history}


def _trackio(run: Path) -> tuple[set[str], list[int], dict[int, float]]:
    from trackio.sqlite_storage import SQLiteStorage

    records = SQLiteStorage.get_run_records("mmupt")
    logs = [log for record in records for log in SQLiteStorage.get_logs("mmupt", record["name"], run_id=record["id"])]
    logs = [log for log in logs if METRIC in log]
    return (
        {record["id"] for record in records},
        [log["step"] for log in logs],
        {log["step"]: log[METRIC] for log in logs},
    )


def _swanlab(run: Path) -> tuple[set[str], list[int], dict[int, float]]:
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record
    from swanlab.sdk.internal.core_python.store import DataStoreReader

    ids, steps, values = set(), [], {}
    for file in sorted((run / "swanlab").glob("*/*.swanlab")):
        store = DataStoreReader()
        store.open(str(file))
        for content in store:
            record = Record()
            record.ParseFromString(content)
            if record.HasField("start"):
                ids.add(record.start.id)
            if record.HasField("scalar") and record.scalar.key == METRIC:
                steps.append(record.scalar.step)
                values[steps[-1]] = record.scalar.value.number
    return ids, steps, values


def _tensorboard(run: Path) -> tuple[set[str], list[int], dict[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    scalars = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload().Scalars(METRIC)
    return {"tensorboard"}, [point.step for point in scalars], {point.step: point.value for point in scalars}


def _file(run: Path) -> tuple[set[str], list[int], dict[int, float]]:
    lines = [json.loads(line) for line in (run / "mmupt" / "my_run.jsonl").read_text().splitlines()]
    return {"file"}, [line["step"] for line in lines], {line["step"]: line["data"][METRIC] for line in lines}


READERS = {
    "file": _file,
    "mlflow": _mlflow,
    "swanlab": _swanlab,
    "tensorboard": _tensorboard,
    "trackio": _trackio,
    "wandb": _wandb,
}


@pytest.fixture(params=READERS)
def tracker(request: pytest.FixtureRequest) -> Iterator[str]:
    if (package := PACKAGES.get(request.param)) and find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    yield request.param


def test_a_restart_continues_the_run_of_a_tracker_and_repeats_no_step(
    tracker: str, environment: Path, train_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    start(tracker, environment, range(0, 5), train_file, changed=1).finish()
    # From the checkpoint of step 2, with another setting. wandb names folders by the second, and TensorBoard orders the
    # files of a second by a count as text, in which 10 comes before 9.
    time.sleep(1.1 if tracker in ("wandb", "tensorboard") else 0)
    start(tracker, environment, range(2, 8), train_file, changed=2).finish()
    runs, steps, values = logged(tracker, environment)
    assert len(runs) == 1
    assert Counter(steps) == Counter(range(0, 8))
    assert values[7] == pytest.approx(0.07)
    was_reported = "from before the restart" in capsys.readouterr().out
    assert was_reported == (tracker != "tensorboard")


# Logs some steps, and then does nothing until it is killed.
KILLED = """
import sys, time
from pathlib import Path
from test_trackers_on_cpu import start
run, train_file, *names = sys.argv[1:]
tracking = start(names, Path(run), range(0, 4), train_file)
print("logged", flush=True)
time.sleep(100)
"""


def test_a_killed_and_resumed_run_has_every_step_once_in_each_tracker(environment: Path, train_file: str) -> None:
    # SwanLab leaves the end of its file to Python's buffer, so that a kill loses it.
    names = [name for name in READERS if name != "swanlab" and find_spec(PACKAGES.get(name, "verl")) is not None]
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    command = [sys.executable, "-c", KILLED, str(environment), train_file, *names]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, "PYTHONPATH": path}
    ) as killed:
        assert killed.stdout is not None and any(line == "logged\n" for line in killed.stdout)
        # wandb writes every tenth of a second.
        time.sleep(1.0)
        os.killpg(killed.pid, signal.SIGKILL)
    # From the checkpoint of step 2.
    start(names, environment, range(2, 6), train_file).finish()
    for name in names:
        runs, steps, _ = logged(name, environment)
        assert len(runs) == 1 and Counter(steps) == Counter(range(0, 6)), name


def test_a_deleted_log_file_gets_the_repeated_steps(environment: Path, train_file: str) -> None:
    start("file", environment, range(0, 5), train_file).finish()
    (environment / "mmupt" / "my_run.jsonl").unlink()
    start("file", environment, range(2, 6), train_file).finish()
    assert logged("file", environment)[1] == [2, 3, 4, 5]


def test_a_run_with_another_id_has_no_steps(tracker: str, environment: Path, train_file: str) -> None:
    start(tracker, environment, range(0, 3), train_file).finish()
    record = TrackerRecord(environment / "trackers.json")
    assert record.last_step(tracker) == 2
    record.begin(tracker, "another")
    assert record.last_step(tracker) == -1


@pytest.mark.parametrize("validates_first", [True, False])
def test_tensorboard_keeps_the_values_of_the_repeated_steps(
    environment: Path, train_file: str, validates_first: bool
) -> None:
    start("tensorboard", environment, range(0, 5), train_file).finish()
    tracking = start("tensorboard", environment, range(0), train_file, validates_first=validates_first)
    for step in range(2 if validates_first else 3, 6):
        tracking.log({METRIC: step / 10}, step)
    tracking.finish()
    _, steps, values = logged("tensorboard", environment)
    assert Counter(steps) == Counter(range(0, 6))
    assert [values[step] for step in (2, 3, 5)] == pytest.approx([0.02, 0.3, 0.5])


def test_verls_tracking_is_unchanged_without_our_replay_buffer(environment: Path) -> None:
    tracking = Tracking("mmupt", "my_run", ["tensorboard", "console"], {"trainer": {"v1": {}}})
    assert type(tracking.logger["tensorboard"]).__name__ == "_TensorboardAdapter"
    tracking.finish()
    assert not (environment / "trackers.json").exists()


def test_tensorboard_shows_groups_with_images(environment: Path, train_file: str) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    start("tensorboard", environment, range(0, 5), train_file).finish()
    events = EventAccumulator(str(environment / "tensorboard"), size_guidance={"tensors": 0, "images": 0}).Reload()
    images = events.Images("vote/groups/1")
    assert [image.step for image in images] == [1, 2, 4] and (images[0].width, images[0].height) == (512, 256)
    text = events.Tensors("vote/groups/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "<script" not in text and "&lt;script&gt;" in text
    assert len(text.strip().splitlines()) == 2 + 3


def test_wandb_gets_a_table_with_images(environment: Path, train_file: str) -> None:
    start("wandb", environment, range(1, 3), train_file).finish()
    logged("wandb", environment)
    files = [*(environment / "wandb").glob("offline-run-*/files/media/**/*")]
    (table, _) = sorted(file for file in files if file.suffix == ".json")
    content = json.loads(table.read_text())
    assert content["columns"] == [*table_row(groups(1)[0]), "image 1"] and len(content["data"]) == 3
    # The pictures are in the artifact of the table.
    assert [row[-1] for row in content["data"]] == ["Image", None, None]
    staged = [file for file in (environment / "cache" / "wandb").rglob("*") if file.is_file()]
    assert any(file.read_bytes().startswith(b"\x89PNG") for file in staged)


def test_mlflow_gets_a_table_with_images_in_the_run_folder(environment: Path, train_file: str) -> None:
    pytest.importorskip("mlflow")
    start("mlflow", environment, range(1, 3), train_file).finish()
    (table,) = (environment / "mlflow").glob("*/artifacts/vote/groups/step_1.json")
    content = json.loads(table.read_text())
    assert content["columns"] == [*table_row(groups(1)[0]), "image 1"]
    assert content["data"][0][-1]["type"] == "image"
    assert not (environment.parent / "mlruns").exists()


def test_a_failed_start_of_mlflow_is_an_error(
    environment: Path, train_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setattr("verl.utils.tracking.MLFLOW_SLEEP_SECONDS", 0)

    def fail(*_: object, **__: object) -> None:
        raise OSError("no server")

    monkeypatch.setattr(mlflow, "start_run", fail)
    with pytest.raises(RuntimeError, match="mlflow did not start"):
        start("mlflow", environment, range(1, 3), train_file)


def test_trackio_gets_a_table_with_images_and_escaped_text(environment: Path, train_file: str) -> None:
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    start("trackio", environment, range(1, 3), train_file).finish()
    # The tracker keeps the folder of a process's first run.
    run = TrackerRecord(environment / "trackers.json").run("trackio")
    logs = SQLiteStorage.get_logs("mmupt", "my_run", run_id=run)
    table = next(log["vote/groups"] for log in logs if "vote/groups" in log)
    assert len(table["_value"]) == 3 and len(table["_value"][0]["images"]) == 1
    assert "<script" not in json.dumps(table)


def test_swanlab_gets_a_table_and_images(environment: Path, train_file: str) -> None:
    pytest.importorskip("swanlab")
    start("swanlab", environment, range(1, 3), train_file).finish()
    names = [file.name for file in (environment / "swanlab").rglob("*") if file.is_file()]
    assert any(name.endswith(".png") for name in names) and any("json" in name for name in names)


def test_training_continues_when_a_tracker_fails(
    environment: Path, train_file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch.utils.tensorboard

    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(torch.utils.tensorboard.SummaryWriter, "add_text", fail)
    start("tensorboard", environment, range(1, 3), train_file).finish()
    assert "tensorboard did not get the groups of step 1: OSError: the disk is full" in capsys.readouterr().out


def test_a_group_becomes_a_row() -> None:
    row = table_row(groups(1)[0])
    assert row["answers"] == "7 x 2, 8 x 1, none x 1" and row["outcome"] == "right"
    assert "\ud800" not in str(row["responses"])
    tie = groups(1)[0] | {"pseudo_label": None, "tied": True, "label_correct": None}
    assert table_row(tie)["outcome"] == "tie" and table_row(tie)["pseudo-label"] == ""
    long = groups(1)[0] | {"question": "a" * 10_000}
    assert len(str(table_row(long)["question"])) < 700


def test_markup_in_a_response_is_escaped() -> None:
    assert as_markdown("<img src=x> a|b [c](d) `e` #f") == ("&lt;img src=x&gt; a\\|b \\[c\\]\\(d\\) \\`e\\` \\#f")


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"number": -1, "every": 1}, ".number must be"),
        ({"number": 1, "every": 0}, ".every must be"),
        ({"number": 1}, ".every must be"),
        ({"number": 1, "every": 1, "evry": 2}, ": there is no key 'evry'; did you mean 'every'?"),
        (8, ".number must be"),
        (None, ".number must be"),
    ],
)
def test_an_invalid_table_setting_is_named(block: Any, message: str) -> None:
    assert f"tracked_groups{message}" in str(problem_of(block))
    assert problem_of({"number": 0, "every": 1}) is None


def test_tables_are_due_at_the_first_step_and_at_multiples_of_every() -> None:
    tables = GroupTables(8, 10, [])
    assert [step for step in range(1, 31) if tables.is_due(step)] == [1, 10, 20, 30]
    assert not GroupTables(0, 10, []).is_due(1)


def test_a_training_file_that_lost_rows_costs_only_images(train_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []
    monkeypatch.setitem(
        group_tables.TABLES, "mine", lambda logger, rows, pictures, step: shown.append(sum(map(len, pictures)))
    )
    tables = GroupTables(2, 1, [train_file])
    tables.log({"mine": object()}, groups(1), 1)
    rows = pq.read_table(train_file)
    pq.write_table(rows.slice(1), train_file)
    tables.log({"mine": object()}, groups(2)[1:2] + groups(2)[:1], 2)
    assert shown == [1, 0]
