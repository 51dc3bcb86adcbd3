"""Faults that occur in days of training, injected into the real stack (`make test-faults`).

After a fault, the run must either continue, or end within a minute with the cause in its log; the same command then
continues from the last complete checkpoint. A start takes a minute, so tests share starts: every cell of the matrix of
kills restarts the same run, and so checks the recovery from the previous kill.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from mmupt.runtime.run_lock import RUN_FOLDER_VARIABLE, SHARED_MEMORY, processes_of
from verl_ext.checkpoints import TRACKER, last_whole_step

pytestmark = [pytest.mark.faults, pytest.mark.full_stack]

OVERRIDES = (
    "data.train_batch_size=4",
    "data.val_max_samples=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "actor_rollout_ref.rollout.n=4",
    "trainer.total_training_steps=400",
    "trainer.val_before_train=False",
    "trainer.test_freq=-1",
    "mmupt.evaluation_files=null",
    "trainer.v1.sampler.sampler_kwargs.watchdog_seconds=30",
)
STEP = re.compile(r"(?<!_)step:(\d+) - ")
SECONDS_TO_START = 240
SECONDS_TO_END = 60
LAUNCHER = "launcher"
FORK_SERVER = "verl_ext.cpu.fork_server"
# The watchdog names a dead actor by its name, Ray by its class.
DIED = r"(died: [^;\n]*|class_name: \S*)"
# Process title, and a pattern of the log after its death.
VICTIMS = {
    LAUNCHER: "",
    "TaskRunnerV1": rf"{DIED}TaskRunner",
    "VLLM::EngineCore": r"EngineDeadError|\(VLLM::EngineCore\) has died",
    "RewardLoopWorker": rf"{DIED}(reward_loop_worker|RewardLoopWorker)",
    "GroupAgentLoopWorker": rf"{DIED}(agent_loop_worker|GroupAgentLoopWorker)",
    "WorkerDict": rf"{DIED}WorkerDict",
    "TransferQueueController": rf"{DIED}TransferQueueController",
    "SimpleStorageUnit": rf"{DIED}(TransferQueueStorageUnit|SimpleStorageUnit)",
    "GroupServer": rf"{DIED}(vllm_server|GroupServer)",
    # veRL makes vLLM's engine die with its parent (`verl/workers/rollout/vllm_rollout/utils.py`), the fork server.
    FORK_SERVER: r"EngineDeadError|\(VLLM::EngineCore\) has died",
}
PYTHONPATH = os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[2])))
PHASES = ("generation", "update", "checkpoint", "weight transfer")


class Run:
    """A run of the tiny recipe in its own folder and process session."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *overrides: str) -> None:
        command = [sys.executable, "-m", "mmupt", "train", "mmupt_tiny", f"mmupt.run_folder={self.folder}"]
        self.log_before = len(self.log())
        for file in ("hold", "held"):
            (self.folder / file).unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [*command, *OVERRIDES, *overrides],
            start_new_session=True,
            # The run's processes import from this folder and checkout, and load hold_phase.py.
            env={
                **os.environ,
                "PYTHONPATH": PYTHONPATH,
                "VERL_USE_EXTERNAL_MODULES": "hold_phase",
                "MMUPT_PLUGINS": "faulty_rewards",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def log(self) -> str:
        file = self.folder / "logs" / "train.log"
        return file.read_text(errors="replace") if file.is_file() else ""

    def new_log(self) -> str:
        return self.log()[self.log_before :]

    def steps(self) -> list[int]:
        return [int(step) for step in STEP.findall(self.new_log())]

    def wait_for(self, event: str, condition: Callable[[], object], seconds: float = SECONDS_TO_START) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process and self.process.poll() is None, f"ended before {event}:\n{self.new_log()[-3000:]}"
            assert time.monotonic() < deadline, f"no {event} within {seconds} s:\n{self.new_log()[-3000:]}"
            time.sleep(0.05)

    def wait_for_steps(self, count: int) -> None:
        self.wait_for(f"step {count}", lambda: len(self.steps()) >= count)

    def wait_for_end(self, seconds: float = SECONDS_TO_END) -> str:
        """Wait for the run to end with an error, within `seconds`; return its log."""
        assert self.process is not None
        assert self.process.wait(timeout=seconds) != 0
        return self.new_log()

    def wait_for_success(self) -> None:
        assert self.process is not None
        assert self.process.wait(timeout=SECONDS_TO_START) == 0, self.new_log()[-3000:]

    def hold(self, phase: str) -> None:
        """Pause the run in a phase (hold_phase.py); return once it is there."""
        temporary = self.folder / "hold.tmp"
        temporary.write_text(phase)
        temporary.rename(self.folder / "hold")
        self.wait_for(phase, (self.folder / "held").exists, seconds=30)
        # Ray forwards the trainer's output with a delay.
        time.sleep(2)

    def named(self, name: str) -> list[psutil.Process]:
        """The processes of this run with `name` in their title or arguments."""
        processes = []
        for process in processes_of(self.folder):
            with suppress(psutil.NoSuchProcess):
                if name in " ".join(process.cmdline()):
                    processes.append(process)
        return processes

    def kill(self, name: str) -> None:
        """Kill the processes with a name, like the kernel when it runs out of memory."""
        if name == LAUNCHER:
            assert self.process is not None
            self.process.kill()
            self.process.wait()
            return
        victims = self.named(name)
        if name == FORK_SERVER:
            # A forked process has the server's arguments until it sets a title.
            assert self.process is not None
            victims = [victim for victim in victims if victim.ppid() == self.process.pid]
        assert victims, f"no process {name!r} in the run"
        for victim in victims:
            victim.kill()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill(LAUNCHER)
        for process in processes_of(self.folder):
            process.kill()


def segments_of(process: psutil.Process) -> set[str]:
    """The named segments of shared memory that a process maps."""
    lines = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    return {line.split(maxsplit=5)[5] for line in lines if f" {SHARED_MEMORY}/" in line and "(deleted)" not in line}


class Bystander:
    """A process of another run, with shared memory of each kind and a Ray session, all of which must stay intact."""

    CODE = """
import sys, time
from multiprocessing.shared_memory import SharedMemory
segments = [SharedMemory(create=True, size=4096), SharedMemory(f"verl_weights_{sys.argv[1]}", create=True, size=4096)]
print(*(segment.name for segment in segments), flush=True)
sys.stdin.read()
for segment in segments:
    segment.unlink()
"""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.CODE, folder.name],
            env={**os.environ, RUN_FOLDER_VARIABLE: str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.segments = [SHARED_MEMORY / name for name in self.process.stdout.readline().split()]
        self.session = Path("/tmp/ray") / f"session_2026-01-01_00-00-00_000000_{self.process.pid}"
        self.session.mkdir(parents=True)

    def touch(self) -> None:
        """Set the age of its segments to zero, like those of a live run."""
        for segment in self.segments:
            os.utime(segment)

    def is_intact(self) -> bool:
        return self.process.poll() is None and self.session.is_dir() and all(map(Path.exists, self.segments))

    def close(self) -> None:
        self.process.communicate("")
        self.session.rmdir()


@dataclass
class Remains:
    """The remains of a killed run: its last complete step, and what the next start must remove."""

    step: int
    launcher: int
    processes: list[psutil.Process]
    segments: set[str]


class Matrix:
    """A run that is killed and restarted repeatedly."""

    def __init__(self, folder: Path) -> None:
        self.run = Run(folder / "run")
        self.bystander = Bystander(folder / f"other{os.getpid()}")
        self.remains: Remains | None = None

    def start(self, *overrides: str) -> None:
        """Start the run; check that it continues after the last kill and has removed that run's remains, no others."""
        if self.run.process is not None and self.run.process.poll() is None:
            # A failed test must not fail the next one.
            self.run.kill(LAUNCHER)
        remains, self.remains = self.remains, None
        self.run.start(*overrides)
        self.run.wait_for_steps(1)
        assert self.bystander.is_intact()
        if remains:
            assert self.run.steps()[0] == remains.step + 1, self.run.new_log()[-6000:]
            assert [process for process in remains.processes if process.is_running()] == []
            assert not list(Path("/tmp/ray").glob(f"session_*_{remains.launcher}"))
            assert not [segment for segment in remains.segments if Path(segment).exists()]

    def kill(self, victim: str) -> None:
        assert self.run.process is not None
        processes = processes_of(self.run.folder)
        segments = set().union(*map(segments_of, processes))
        self.bystander.touch()
        self.run.kill(victim)
        self.remains = Remains(last_whole_step(self.run.checkpoints), self.run.process.pid, processes, segments)


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    matrix = Matrix(tmp_path_factory.mktemp("matrix"))
    yield matrix
    matrix.run.close()
    matrix.bystander.close()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path / "run")
    yield run
    run.close()


@pytest.mark.parametrize(
    ("victim", "phase"),
    [(victim, phase) for victim in VICTIMS for phase in PHASES if victim not in ("GroupServer", FORK_SERVER)]
    # Kills of the engine cover their other phases: the server dies with it.
    + [("GroupServer", "generation"), (FORK_SERVER, "update")],
)
def test_a_kill_in_any_phase_ends_the_run_with_the_name_of_the_victim_and_the_same_command_continues(
    matrix: Matrix, victim: str, phase: str
) -> None:
    matrix.start()
    run = matrix.run
    run.hold(phase)
    reached, log_before = max(run.steps()), len(run.log())
    matrix.kill(victim)
    assert matrix.remains is not None
    # The weights are transferred after the checkpoint.
    assert matrix.remains.step == reached + (phase == "weight transfer")
    if victim != LAUNCHER:
        run.wait_for_end()
        log = run.log()[log_before:]
        assert re.search(VICTIMS[victim], log), log[-6000:]
        # The run may finish a step on responses from before the kill.
        step = last_whole_step(run.checkpoints)
        assert step in (matrix.remains.step, matrix.remains.step + 1)
        matrix.remains.step = step


def test_a_launcher_killed_in_the_export_the_evaluation_or_the_report_is_continued(matrix: Matrix) -> None:
    run, evaluation = matrix.run, matrix.run.folder / "evaluation"
    last = last_whole_step(run.checkpoints) + 2
    overrides = (
        f"trainer.total_training_steps={last}",
        "mmupt.evaluation_files=datasets/figures/validation.parquet",
        # Enough samples that the evaluation is still running when its log line appears, even on a busy machine.
        "mmupt.evaluation_samples=16",
    )
    matrix.start(*overrides)
    run.wait_for("export", lambda: run.named("verl.model_merger") and (run.folder / "model").is_dir())
    run.kill(LAUNCHER)
    assert run.steps() == [last - 1, last]
    assert not (run.folder / "model" / "global_step.txt").exists()

    # The processes of a dead launcher run on until the next start ends them, so the first evaluation may be complete by
    # then; otherwise the second start repeats it.
    for name, model in (("before", "recipes/mmupt/tiny/model"), ("after", str(run.folder / "model"))):
        run.start(*overrides)
        run.wait_for(name, lambda model=model: f"{model}: ready after" in run.new_log())
        assert run.named("mmupt.training.policy_evaluation")
        run.kill(LAUNCHER)
        assert not (evaluation / f"{name}.jsonl").exists()

    # A pipe without a reader blocks the writing of the report.
    pipe = run.folder / "report.md.tmp"
    os.mkfifo(pipe)
    run.start(*overrides)
    run.wait_for("report", (run.folder / "report.png").exists)
    run.kill(LAUNCHER)
    pipe.unlink()
    files = [run.folder / "model" / "model.safetensors", *evaluation.glob("*.json*")]
    modified = {file: file.stat().st_mtime_ns for file in files}
    assert len(modified) == 5

    run.start(*overrides)
    run.wait_for_success()
    assert {file: file.stat().st_mtime_ns for file in files} == modified
    report = json.loads((run.folder / "report.json").read_text())
    assert report["questions"] == 256
    trained = [step for step, _ in report["series"]["response_length/mean"]]
    # A step killed between its checkpoint and its metrics, or before these reach the disk, is missing.
    assert trained == sorted(set(trained)) and trained[-1] == last and set(trained) <= set(range(1, last + 1))
    # No step was trained after the kill in the export.
    assert STEP.findall(run.log()).count(str(last)) == 1 and last_whole_step(run.checkpoints) == last


def test_failed_responses_are_left_out_until_a_step_has_no_other(run: Run) -> None:
    agents = "actor_rollout_ref.rollout.agent"
    run.start(
        f"{agents}.default_agent_loop=failing_agent",
        f"{agents}.agent_loop_config_path=tests/faults/agent_loops.yaml",
    )
    log = run.wait_for_end(SECONDS_TO_START)
    # One response per group, all but one per group, one whole group; in the fourth step all.
    assert re.findall(r"vote/failed_responses:([\d.]+)", log) == ["4.0", "12.0", "4.0"]
    assert "this response always fails" in log and "no materializable trajectories" in log


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ("raising", "this reward always raises"),
        ("hanging", r"nothing has finished for 3\d s; 4 prompts wait for reward worker 0: figures-main-train"),
    ],
)
def test_a_reward_that_raises_or_never_returns_ends_the_run_with_the_cause(run: Run, reward: str, message: str) -> None:
    run.start(f"reward.reward_manager.name={reward}")
    log = run.wait_for_end(SECONDS_TO_START)
    assert re.search(message, log)


def test_an_asynchronous_run_in_which_every_group_fails_ends_with_the_cause(run: Run) -> None:
    run.start("+async=colocate", "reward.reward_manager.name=raising")
    log = run.wait_for_end(SECONDS_TO_START)
    assert "this reward always raises" in log
    assert re.search(r"\d+ groups have failed in a row, more than a step has prompts", log)


def test_a_separate_run_ends_with_the_name_of_the_victim_and_the_same_command_continues(run: Run) -> None:
    generating = rf"{DIED}(rollout_standalone|CheckpointEngineWorker)"
    for victim, message in (("CheckpointEngineWorker", generating), ("VLLM::EngineCore", VICTIMS["VLLM::EngineCore"])):
        step = last_whole_step(run.checkpoints)
        run.start("+async=separate_cpu")
        run.wait_for_steps(2)
        assert run.steps()[0] == step + 1
        run.kill(victim)
        log = run.wait_for_end()
        assert re.search(message, log), log[-6000:]


def test_runs_continue_from_the_last_complete_checkpoint_after_an_epoch_and_with_a_broken_tracker(run: Run) -> None:
    overrides, tracker = "data.train_max_samples=8", run.checkpoints / TRACKER
    run.start(overrides, "trainer.total_training_steps=2")
    run.wait_for_success()
    # After exactly one epoch, with an empty tracker, as after a kill while it was written.
    tracker.write_text("")
    run.start(overrides, "trainer.total_training_steps=4")
    run.wait_for_success()
    assert run.steps() == [3, 4] and "resuming from step 2" in run.new_log()
    # The tracker names a missing checkpoint.
    tracker.write_text("7")
    run.start(overrides, "trainer.total_training_steps=5")
    run.wait_for_success()
    assert run.steps() == [5] and "resuming from step 4" in run.new_log()


def test_a_full_disk_at_a_checkpoint_ends_the_run_and_keeps_the_last_complete_one(run: Run) -> None:
    run.start()
    run.wait_for_steps(2)
    step = max(run.steps())
    for later in range(step + 3, step + 6):
        folder = run.checkpoints / f"global_step_{later}" / "actor"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model_world_size_1_rank_0.pt").symlink_to("/dev/full")
    log = run.wait_for_end()
    # torch's message for a failed write.
    assert "torch.save(model_state_dict" in log and "inline_container.cc" in log
    assert last_whole_step(run.checkpoints) == step + 2
    assert (run.checkpoints / TRACKER).read_text() == str(step + 2)
