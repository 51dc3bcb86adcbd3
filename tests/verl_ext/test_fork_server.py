"""A process forked from the server equals one that Python would start, without repeating the imports."""

import json
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from verl_ext.cpu.fork_server import WITH_RAY, fork_server
from verl_ext.cpu.forked_python import SERVER, fork_python
from verl_ext.patches.forked_engine import patched

IMPORTED = """
import os
with open(os.environ["IMPORTS"], "a") as file:
    file.write("x")
os.environ["SET_BY_AN_IMPORT"] = "yes"
"""
SCRIPT = """
import json, os, random, signal, sys
import numpy
import large
print(json.dumps({
    "name": __name__, "arguments": sys.argv, "path": sys.path[0], "folder": os.getcwd(), "variable": os.environ["MINE"],
    "server's": os.environ.get("OMP_NUM_THREADS"), "by import": os.environ["SET_BY_AN_IMPORT"],
    "random": random.random(), "numpy": numpy.random.rand(),
    "signals": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
    "niceness": os.getpriority(os.PRIO_PROCESS, 0),
}), flush=True)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "large.py").write_text(IMPORTED)
    (tmp_path / "modules" / "late.py").write_text("import os\nCLUSTER = os.environ['RAY_JOB_ID']")
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path


def variables(folder: Path) -> dict[str, str]:
    path = os.pathsep.join([str(folder / "modules"), *sys.path])
    return {"PYTHONPATH": path, "IMPORTS": str(folder / "imports"), "OMP_NUM_THREADS": "1", "RAY_JOB_ID": "1"}


@pytest.fixture
def program(folder: Path) -> Iterator[list[str]]:
    """The `python` command of Ray's workers, with a new fork server."""
    with fork_server(variables(folder), ["large", "numpy"], ["late"]) as runtime_env:
        yield [
            "env",
            *(f"{key}={value}" for key, value in runtime_env["env_vars"].items()),
            *shlex.split(runtime_env["py_executable"]),
        ]


def start(program: list[str], folder: Path, *arguments: str) -> dict[str, Any]:
    """Run the script with the program and return what it printed."""
    environment = variables(folder) | {"MINE": "é"}
    del environment["OMP_NUM_THREADS"]
    command = [*program, str(folder / "script.py"), *arguments]
    completed = subprocess.run(
        command, cwd=folder / "modules", env=environment, stdout=subprocess.PIPE, text=True, timeout=60
    )
    printed = json.loads(completed.stdout)
    assert printed["arguments"] == [str(folder / "script.py"), *arguments] and printed["name"] == "__main__"
    assert printed["folder"] == str(folder / "modules") and printed["path"] == str(folder)
    assert (printed["variable"], printed["server's"], printed["by import"]) == ("é", None, "yes") and printed["signals"]
    return printed


def test_forked_processes_repeat_no_import_and_have_different_random_numbers(program: list[str], folder: Path) -> None:
    outputs = [start(program, folder, "0") for _ in range(3)]
    assert (folder / "imports").read_text() == "x"
    assert len({output["random"] for output in outputs}) == len({output["numpy"] for output in outputs}) == 3


def test_forked_processes_draw_different_ids_for_objects_of_ray(folder: Path) -> None:
    code = (
        "import ray, threading\n"
        "draw = lambda: print(ray.ObjectRef.from_random().hex(), flush=True)\n"
        "draw()\n"
        "thread = threading.Thread(target=draw)\n"
        "thread.start()\n"
        "thread.join()"
    )
    with fork_server(variables(folder), ["numpy"], WITH_RAY) as runtime_env:
        environment = os.environ | variables(folder) | runtime_env["env_vars"]
        command = [*shlex.split(runtime_env["py_executable"]), "-c", code]
        runs = [
            subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
            for _ in range(2)
        ]
    ids = [id_ for run in runs for id_ in run.stdout.split()]
    assert len(ids) == len({*ids}) == 4


def test_a_forked_process_has_the_niceness_of_its_requester(program: list[str], folder: Path) -> None:
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    if mine > 16:
        pytest.skip("no niceness is left")
    assert start(program, folder, "0")["niceness"] == mine
    assert start(["nice", "-n", "2", *program], folder, "0")["niceness"] == mine + 2


def test_without_a_server_the_program_is_python_itself(program: list[str], folder: Path) -> None:
    start([word for word in program if not word.startswith(SERVER)], folder, "0")
    assert (folder / "imports").read_text().startswith("x")


def test_a_server_with_threads_is_not_forked(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "modules" / "threads.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()"
    )
    with fork_server(variables(folder), ["large", "threads"], []) as runtime_env:
        program = ["env", f"{SERVER}={runtime_env['env_vars'][SERVER]}", *shlex.split(runtime_env["py_executable"])]
        start(program, folder, "0")
    assert (folder / "imports").read_text() == "xx"
    assert "has 2 threads after imports and cannot be forked" in capfd.readouterr().err


def test_a_server_that_has_drawn_an_id_of_ray_is_not_forked(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "modules" / "drawing.py").write_text("import ray\nray.ObjectRef.from_random()")
    with fork_server(variables(folder), ["large"], ["drawing"]) as runtime_env:
        program = ["env", f"{SERVER}={runtime_env['env_vars'][SERVER]}", *shlex.split(runtime_env["py_executable"])]
        start(program, folder, "0")
    assert (folder / "imports").read_text() == "xx"
    assert "would draw the same IDs" in capfd.readouterr().err


def test_the_exit_status_arrives_when_the_process_ends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in (variables(folder) | {"MINE": ""}).items():
        monkeypatch.setenv(key, value)
    with fork_server({}, ["large", "numpy"], ["late"]) as runtime_env:
        monkeypatch.setenv(SERVER, runtime_env["env_vars"][SERVER])
        for arguments, status in ((["7"], b"7"), (["0"], b"0")):
            connection, _ = fork_python([str(folder / "script.py"), *arguments], [0])
            assert connection.recv(64) == status
        connection, pid = fork_python(["-c", "import time; time.sleep(60)"], [0])
        os.kill(pid, signal.SIGKILL)
        assert connection.recv(64) == b"-9"


def test_a_forked_process_is_in_the_process_group_of_its_requester(program: list[str], folder: Path) -> None:
    (folder / "group.py").write_text("import os; print(os.getpgrp(), flush=True)")
    requester = subprocess.Popen(
        [*program, str(folder / "group.py")],
        env=variables(folder) | {"MINE": ""},
        stdout=subprocess.PIPE,
        preexec_fn=os.setpgrp,
    )
    output, _ = requester.communicate(timeout=60)
    assert int(output) == requester.pid


def test_late_modules_are_imported_for_the_first_worker_and_tie_the_server_to_its_cluster(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = ["-c", "import late, sys; sys.exit(int(late.CLUSTER))"]
    with fork_server(variables(folder), ["large"], ["late"]) as runtime_env:
        monkeypatch.setenv(SERVER, runtime_env["env_vars"][SERVER])
        for _ in range(2):
            monkeypatch.setenv("RAY_JOB_ID", "5")
            connection, _ = fork_python(code, [0])
            assert connection.recv(64) == b"5"
        monkeypatch.setenv("RAY_JOB_ID", "6")
        with pytest.raises(ConnectionError):
            fork_python(code, [0])


def test_the_server_ends_with_the_process_that_started_it(folder: Path) -> None:
    code = (
        "import time; from verl_ext.cpu.fork_server import fork_server\n"
        "with fork_server({}, ['large'], []):\n    print('up', flush=True); time.sleep(60)"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, **variables(folder)}, stdout=subprocess.PIPE
    )
    assert starter.stdout is not None and starter.stdout.readline() == b"up\n"
    (server,) = psutil.Process(starter.pid).children()
    starter.kill()
    starter.wait()
    server.wait(timeout=20)


def _engine(status: int) -> None:
    sys.exit(status if "large" in sys.modules else 99)


def test_vllms_engine_is_forked_from_the_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spawn = multiprocessing.get_context("spawn")
    assert patched(lambda: spawn) is spawn
    with fork_server(variables(folder), ["large", "numpy"], ["late"]) as runtime_env:
        monkeypatch.setenv(SERVER, runtime_env["env_vars"][SERVER])
        context = patched(lambda: spawn)
        engines = [context.Process(target=_engine, args=(status,)) for status in (0, 3)]
        for engine, status in zip(engines, (0, 3), strict=True):
            engine.start()
            assert engine.is_alive() or engine.exitcode == status
            engine.join(timeout=60)
            assert engine.exitcode == status and not engine.is_alive()
        killed = context.Process(target=time.sleep, args=(60,))
        killed.start()
        killed.terminate()
        killed.join(timeout=60)
        assert killed.exitcode == -signal.SIGTERM


def test_the_engine_ends_with_its_requester_even_after_a_kill(folder: Path) -> None:
    code = (
        "import multiprocessing, time; from verl_ext.patches.forked_engine import patched\n"
        "engine = patched(lambda: multiprocessing.get_context('spawn')).Process(target=time.sleep, args=(60,))\n"
        "engine.start(); print(engine.pid, flush=True); time.sleep(60)"
    )
    with fork_server(variables(folder), ["large", "numpy"], ["late"]) as runtime_env:
        environment = {**os.environ, **variables(folder), SERVER: runtime_env["env_vars"][SERVER]}
        # In a new session: the engine joins its process group, and only the requester is killed.
        requester = subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, start_new_session=True
        )
        assert requester.stdout is not None
        engine = psutil.Process(int(requester.stdout.readline()))
        assert engine.is_running() and engine.ppid() != requester.pid
        requester.kill()
        requester.wait()
        engine.wait(timeout=20)


def test_ray_and_vllm_name_their_processes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import os, ray, setproctitle, psutil\n"
        "ray._raylet.setproctitle('ray::First.run')\n"
        "assert psutil.Process().cmdline()[0] == 'ray::First.run'\n"
        "setproctitle.setproctitle('VLLM::EngineCore')\n"
        "assert psutil.Process().cmdline()[0] == 'VLLM::EngineCore'\n"
        # The processes of a run are found by this variable.
        "assert psutil.Process().environ()['MMUPT_RUN_FOLDER'] == 'here'"
    )
    with fork_server(variables(folder) | {"MMUPT_RUN_FOLDER": "here"}, ["numpy"], ["ray"]) as runtime_env:
        monkeypatch.setenv(SERVER, runtime_env["env_vars"][SERVER])
        monkeypatch.setenv("RAY_JOB_ID", "1")
        monkeypatch.setenv("RAY_ANOTHER", "2")
        connection, _ = fork_python(["-c", code], [0, 1, 2])
        assert connection.recv(64) == b"0"
