"""`mmupt doctor` reports what machines and installations lack, and checks this machine."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil
import pytest
from packaging.specifiers import SpecifierSet

from mmupt.runtime import doctor_findings, doctor_gpus, doctor_installation, doctor_machine, doctor_ray
from mmupt.runtime.doctor_findings import Finding
from mmupt.runtime.doctor_gpus import Gpu
from mmupt.runtime.doctor_machine import GIB, Space

H100 = Gpu("NVIDIA H100 80GB HBM3", 81559, 4, "580.65.06")


def only(findings: Iterable[Finding]) -> Finding:
    (finding,) = findings
    return finding


def by_check(findings: Iterable[Finding]) -> dict[str, tuple[str, str]]:
    """Check -> (status, finding)."""
    return {finding.check: (finding.status, finding.found) for finding in findings}


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Return a function that adds a command, by name and shell script, to an otherwise empty PATH."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()

    def add(name: str, script: str) -> None:
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)

    return add


def test_this_machine_has_what_the_tests_need() -> None:
    ran = subprocess.run([sys.executable, "-m", "mmupt", "doctor", "--json"], capture_output=True, text=True)
    answer = json.loads(ran.stdout)
    findings = {finding["check"]: finding for finding in answer["findings"]}
    assert ran.returncode == int(answer["status"] == "problem")
    for check in ("verl-mmupt", "verl", "torch", "vllm", "transformers", "ray", *doctor_installation.PLUGIN_GROUPS):
        assert findings[check]["status"] == "ok", findings[check]
    assert {"GPUs", "CPU", "main memory", "shared memory", "disk of runs", "sockets", "flash-attn"} <= {*findings}
    assert all(finding["fix"] for finding in answer["findings"] if finding["status"] != "ok")


def test_a_finding_is_one_line_followed_by_its_fix() -> None:
    findings = [Finding("verl", "ok", "0.9.1"), Finding("driver", "problem", "535", "install driver 580 or newer")]
    assert doctor_findings.as_text(findings).splitlines() == [
        "OK       verl    0.9.1",
        "problem  driver  535",
        "                 -> install driver 580 or newer",
        "",
        "1 problem, no warnings",
    ]
    assert doctor_findings.worst(findings) == json.loads(doctor_findings.as_json(findings))["status"] == "problem"
    assert doctor_findings.worst(findings[:1]) == "ok"


# Packages


def test_the_pins_are_those_of_this_project_and_of_verl() -> None:
    wanted = doctor_installation.wanted_versions()
    pins = {"verl": "==0.9.1", "torch": "==2.11.0", "vllm": "==0.24.0", "flash-attn": "==2.8.3"}
    assert {name: str(wanted[name]) for name in pins} == pins
    assert "5.9.0" in wanted["transformers"] and "5.6.0" not in wanted["transformers"]


def test_installed_versions_are_compared_with_the_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"verl": "0.9.0", "torch": "2.11.0+cu130", "vllm": "0.24.0+cpu", "transformers": "5.6.0"}

    class Distribution:
        def __init__(self, name: str) -> None:
            if name not in installed:
                raise doctor_installation.PackageNotFoundError(name)
            self.version = installed[name]

    wanted = {**doctor_installation.wanted_versions(), "ray": SpecifierSet(">=2.41.0")}
    monkeypatch.setattr(doctor_installation, "distribution", Distribution)
    monkeypatch.setattr(doctor_installation, "is_installed", lambda name: False)
    found = by_check(doctor_installation.check_packages(wanted))
    assert found["verl"] == ("problem", "0.9.0, but the patches support 0.9.1 only")
    assert found["torch"] == ("ok", "2.11.0+cu130") and found["vllm"] == ("ok", "0.24.0+cpu")
    assert found["transformers"][0] == "warning" and "5.6.0, but veRL 0.9.1 requires" in found["transformers"][1]
    assert found["ray"] == ("problem", "not installed")


def test_code_that_is_on_the_path_but_not_installed_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_installation, "distributions", lambda **_: [])
    status, found = by_check(doctor_installation.check_packages({}))["verl-mmupt"]
    assert status == "problem" and "not installed: veRL does not find the plugin" in found


def test_an_environment_is_compared_with_the_setup_script(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / ".venv").mkdir(parents=True)
    (checkout / "scripts").mkdir()
    script = checkout / "scripts" / "setup.sh"
    script.write_text("#!/bin/sh\n[ \"$1\" = --check ] && echo 'setup: .venv is old' >&2\nexit 1\n")
    script.chmod(0o755)
    assert only(doctor_installation.check_checkout(checkout, checkout / ".venv")).found == ".venv is old"
    script.write_text("#!/bin/sh\nexit 0\n")
    assert only(doctor_installation.check_checkout(checkout, checkout / ".venv")).status == "ok"
    assert not list(doctor_installation.check_checkout(checkout, tmp_path / "another"))


# The child process


def test_plugins_that_do_not_load_or_are_not_registered_are_problems() -> None:
    loaded = {"verl.plugins:mmupt": "ModuleNotFoundError: No module named 'wrapt'"}
    found = by_check(doctor_installation.check_plugins({"entry_points": loaded}))
    assert found["verl.plugins"] == ("problem", "mmupt: ModuleNotFoundError: No module named 'wrapt'")
    assert found["vllm.general_plugins"] == ("problem", "no entry point of verl-mmupt is registered")


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("import time; time.sleep(60)", "importing takes more than 1 seconds"),
        ("import os; os.abort()", "importing ends the process with status -6"),
        ("raise SystemExit('no symbol _ZN3c10')", "status 1: no symbol _ZN3c10"),
    ],
)
def test_a_child_that_hangs_or_crashes_is_a_problem(code: str, failure: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    answer = doctor_installation.answer_of_child(child, seconds=1)
    assert failure in only(doctor_installation.check_plugins(answer)).found


def test_flash_attention_matters_only_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(doctor_installation.check_flash_attention({}, has_gpu=False)).status == "ok"
    assert only(doctor_installation.check_flash_attention({}, has_gpu=True)).status == "warning"
    monkeypatch.setattr(doctor_installation, "is_installed", lambda name: True)
    finding = only(
        doctor_installation.check_flash_attention({"flash_attn": "ImportError: undefined symbol"}, has_gpu=True)
    )
    assert finding.status == "problem" and "undefined symbol" in finding.found


# Devices


def test_gpus_are_those_that_nvidia_smi_lists(command: Callable[[str, str], None]) -> None:
    assert doctor_gpus.ask_nvidia_smi() == ([], None) or Path("/proc/driver/nvidia/version").exists()
    command("nvidia-smi", "echo 'NVIDIA H100 80GB HBM3, 81559, 4, 580.65.06'; echo 'NVIDIA GB10, [N/A], [N/A], 580.1'")
    assert doctor_gpus.ask_nvidia_smi() == ([H100, Gpu("NVIDIA GB10", 0, 0, "580.1")], None)
    command("nvidia-smi", "echo 'Failed to initialize NVML:'; echo 'Driver/library version mismatch'; exit 18")
    gpus, error = doctor_gpus.ask_nvidia_smi()
    assert (gpus, error) == ([], "nvidia-smi: Failed to initialize NVML: Driver/library version mismatch")


def test_cuda_of_torch_is_read_without_importing_it() -> None:
    code = (
        "import sys; from mmupt.runtime.doctor_gpus import cuda_of_torch; print(cuda_of_torch());"
        "assert 'torch' not in sys.modules"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    import torch

    assert ran.stdout.strip() == str(torch.version.cuda)


@pytest.mark.parametrize(
    ("driver", "cuda", "status"),
    [
        ("580.65.06", "13.0", "ok"),
        ("570.124", "13.0", "problem"),
        ("535.1", "12.8", "ok"),
        ("470.1", "12.8", "problem"),
        ("580.1", None, "problem"),
        ("580.1", "14.0", "ok"),
    ],
)
def test_a_driver_is_compared_with_the_cuda_of_torch(driver: str, cuda: str | None, status: str) -> None:
    assert only(doctor_gpus.check_driver(driver, cuda, is_used=False)).status == status


def test_an_older_driver_that_torch_can_use_is_a_warning() -> None:
    assert only(doctor_gpus.check_driver("535.1", "13.0", is_used=True)).status == "warning"


def test_busy_gpus_and_gpus_that_vllm_cannot_use_are_warnings() -> None:
    busy = Gpu("H100", 81559, 40960, "580.1")
    found = by_check(doctor_gpus.check_gpus([H100, busy], None, True))
    assert found["GPU 0"][0] == "ok"
    assert found["GPU 1"] == ("warning", "H100, 80 GiB, 40.0 in use")
    assert found["vllm"][0] == "warning"


def test_no_gpu_is_fine_only_with_vllm_for_cpu() -> None:
    assert only(doctor_gpus.check_gpus([], None, True)).status == "ok"
    assert only(doctor_gpus.check_gpus([], None, False)).status == "warning"
    assert only(doctor_gpus.check_gpus([], "nvidia-smi: version mismatch", True)).status == "problem"


def test_torch_that_sees_no_gpu_is_a_problem() -> None:
    finding = only(doctor_gpus.check_torch({"gpus": 0, "error": "RuntimeError: driver too old"}, 8))
    assert (finding.status, finding.found) == ("problem", "none of 8: RuntimeError: driver too old")
    assert only(doctor_gpus.check_torch({"gpus": 2, "error": None}, 8)).found == "2 of 8"


def test_a_containers_limits_count(tmp_path: Path) -> None:
    machine = psutil.virtual_memory().total
    assert doctor_machine.main_memory(tmp_path).total == machine
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert doctor_machine.main_memory(tmp_path).total == machine
    assert doctor_machine.usable_cpus(tmp_path) == len(os.sched_getaffinity(0))
    (tmp_path / "memory.max").write_text(f"{2 * GIB}\n")
    (tmp_path / "memory.current").write_text(f"{GIB}\n")
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    memory = doctor_machine.main_memory(tmp_path)
    assert memory.total == 2 * GIB and memory.free <= GIB
    assert doctor_machine.usable_cpus(tmp_path) == 0.5
    assert only(doctor_machine.check_memory(memory)).status == only(doctor_machine.check_cpus(0.5)).status == "warning"
    assert (
        only(doctor_machine.check_memory(Space(64 * GIB, 60 * GIB))).status
        == only(doctor_machine.check_cpus(2)).status
        == "ok"
    )


@pytest.mark.parametrize(
    ("space", "status"),
    [
        (Space(64 * 2**20, 64 * 2**20), "problem"),
        (Space(8 * GIB, 8 * GIB), "warning"),
        (Space(32 * GIB, 2 * GIB), "warning"),
        (Space(32 * GIB, 30 * GIB), "ok"),
    ],
)
def test_shared_memory_must_hold_rays_objects(space: Space, status: str) -> None:
    finding = only(doctor_machine.check_shared_memory(space, 64 * GIB))
    assert finding.status == status and (finding.fix is None) == (status == "ok")


def test_a_small_machine_needs_less_shared_memory() -> None:
    assert only(doctor_machine.check_shared_memory(Space(8 * GIB, 8 * GIB), 16 * GIB)).status == "ok"


@pytest.mark.parametrize(("free", "status"), [(0.5, "problem"), (5, "warning"), (50, "ok")])
def test_a_disk_needs_room_for_a_run(tmp_path: Path, free: float, status: str) -> None:
    assert only(doctor_machine.check_disk("disk of runs", tmp_path, Space(100 * GIB, int(free * GIB)))).status == status


# Ray


@pytest.fixture
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_the_address_of_a_killed_ray_head_is_a_warning(tmp_path: Path, listening: str) -> None:
    assert not list(doctor_ray.check_current_cluster(tmp_path))
    (tmp_path / "ray_current_cluster").write_text(listening)
    assert only(doctor_ray.check_current_cluster(tmp_path)).status == "ok"
    (tmp_path / "ray_current_cluster").write_text("127.0.0.1:1")
    finding = only(doctor_ray.check_current_cluster(tmp_path))
    assert (finding.status, finding.fix) == ("warning", f"rm {tmp_path / 'ray_current_cluster'}")


def test_the_cluster_that_runs_join_must_answer(
    tmp_path: Path, listening: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    for address, status in ((listening, "ok"), ("auto", "ok"), ("127.0.0.1:1", "problem")):
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert by_check(doctor_ray.check_ray({"HOME": str(tmp_path)}))["RAY_ADDRESS"][0] == status


def test_a_token_must_be_readable_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    file = tmp_path / "auth_token"
    assert not list(doctor_ray.check_token(file, {}))
    file.write_text("secret")
    file.chmod(0o600)
    assert only(doctor_ray.check_token(file, {})).status == "ok"
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert "ask for a token" in only(doctor_ray.check_token(file, {})).found
    assert only(doctor_ray.check_token(file, {"RAY_AUTH_MODE": "token"})).status == "ok"
    monkeypatch.setattr(doctor_ray, "_is_open_to_others", lambda file: True)
    assert only(doctor_ray.check_token(file, {"RAY_AUTH_MODE": "token"})).fix == f"chmod 600 {file}"
    file.write_text("\n")
    assert only(doctor_ray.check_token(file, {})).status == "problem"


def test_a_file_is_open_to_others_if_its_folders_are(tmp_path: Path) -> None:
    file = tmp_path / "auth_token"
    file.write_text("secret")
    file.chmod(0o644)
    tmp_path.chmod(0o700)
    assert not doctor_ray._is_open_to_others(file)
    file.chmod(0o600)
    tmp_path.chmod(0o755)
    assert not doctor_ray._is_open_to_others(file)


def test_sessions_of_dead_clusters_are_a_warning_if_they_are_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not list(doctor_ray.check_sessions(tmp_path, []))
    for name in ("session_2026-01-01_00-00-00_1_1", "session_2026-01-02_00-00-00_1_2"):
        (tmp_path / name / "logs").mkdir(parents=True)
        (tmp_path / name / "logs" / "raylet.out").write_bytes(b"x" * 8192)
    (tmp_path / "session_latest").symlink_to(tmp_path / "session_2026-01-02_00-00-00_1_2")
    running = ["raylet --session-dir=/tmp/ray/session_2026-01-02_00-00-00_1_2"]
    finding = only(doctor_ray.check_sessions(tmp_path, running))
    assert finding.status == "ok" and finding.found.startswith("1 running, 1 of dead clusters")
    monkeypatch.setattr(doctor_ray, "SESSIONS", 8191)
    assert only(doctor_ray.check_sessions(tmp_path, running)).status == "warning"
    assert only(doctor_ray.check_sessions(tmp_path, [])).fix == f"rm -r {tmp_path}/session_2*"


def test_workers_whose_raylet_has_ended_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    workers = []
    try:
        for raylet in (ended.pid, os.getpid()):
            environment = {**os.environ, "RAY_RAYLET_PID": str(raylet)}
            workers.append(subprocess.Popen(["bash", "-c", "exec -a ray::IDLE sleep 60"], env=environment))
        for worker in workers:
            while psutil.Process(worker.pid).cmdline()[:1] != ["ray::IDLE"]:
                assert worker.poll() is None
        fixes = [finding.fix for finding in doctor_ray.check_ray({"HOME": str(tmp_path)})]
        (fix,) = (fix for fix in fixes if fix and fix.startswith("kill "))
        assert str(workers[0].pid) in fix.split() and str(workers[1].pid) not in fix.split()
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


# Paths


def test_the_folder_checks_of_the_launcher_are_included(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {"HOME": str(tmp_path)}
    found = by_check(doctor_machine.check_paths(environ))
    assert {check: status for check, (status, _) in found.items()} == {
        "sockets": "ok",
        "working directory": "ok",
        "hub cache": "ok",
    }
    (tmp_path / "numpy.py").touch()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("long" * 30)))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    found = by_check(doctor_machine.check_paths(environ))
    assert "numpy.py would hide" in found["working directory"][1]
    assert "bytes too long for the sockets" in found["sockets"][1]
    assert found["working directory"][0] == found["sockets"][0] == "problem"
