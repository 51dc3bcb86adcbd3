"""What goes wrong in days of training, done on purpose on the real stack (`make test-faults`).

Every fault must end in one of two ways: the run goes on, or it ends within a minute with the cause named, and the same
command then continues from its last checkpoint.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from recipes.mmupt.leftovers import processes_of
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


class Run:
    """A run of the tiny recipe in a folder and a session of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *overrides: str, **environment: str) -> None:
        command = [sys.executable, "-m", "recipes.mmupt.train", "mmupt_tiny", f"mmupt.run_folder={self.folder}"]
        self.log_before = len(self.log())
        self.process = subprocess.Popen(
            [*command, *OVERRIDES, *overrides],
            start_new_session=True,
            # For the processes of the run to find faulty.py.
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), **environment},
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

    def wait_for_steps(self, count: int) -> None:
        deadline = time.monotonic() + SECONDS_TO_START
        while len(self.steps()) < count:
            assert self.process and self.process.poll() is None, f"the run ended early:\n{self.new_log()[-3000:]}"
            assert time.monotonic() < deadline, f"no step {count} in time:\n{self.new_log()[-3000:]}"
            time.sleep(0.1)

    def wait_for_end(self, seconds: float = SECONDS_TO_END) -> str:
        """Return the log of a run that must end with an error, in time."""
        assert self.process is not None
        assert self.process.wait(timeout=seconds) != 0
        return self.new_log()

    def kill(self, name: str) -> None:
        """Kill, as the kernel would for want of memory, the processes of this run that have `name` in their title."""
        victims = [process for process in processes_of(self.folder) if name in " ".join(process.cmdline())]
        assert victims, f"no process {name!r} in the run"
        for victim in victims:
            victim.kill()

    def kill_launcher(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill_launcher()
        for process in processes_of(self.folder):
            process.kill()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path / "run")
    yield run
    run.close()


def in_phase(run: Run, phase: str) -> None:
    """Wait until the trainer is in a phase: told by what its main thread does, as py-spy sees it."""
    (trainer,) = [process for process in processes_of(run.folder) if "TaskRunnerV1" in " ".join(process.cmdline())]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        command = [Path(sys.executable).with_name("py-spy"), "dump", "--pid", str(trainer.pid), "--nonblocking"]
        if phase in subprocess.run(command, capture_output=True, text=True).stdout:
            return
    raise AssertionError(f"the trainer was never in {phase}")


@pytest.mark.parametrize(
    ("victim", "named"),
    [
        ("VLLM::EngineCore", "EngineDead|EngineCore|died"),
        ("vLLMHttpServer", "died"),
        ("RewardLoopWorker", "reward_loop_worker|RewardLoopWorker"),
        ("GroupAgentLoopWorker", "agent_loop_worker|GroupAgentLoopWorker"),
        ("WorkerDict", "WorkerDict|died"),
        ("TaskRunnerV1", "TaskRunner"),
    ],
)
def test_a_killed_process_ends_the_run_with_its_name_and_the_same_command_continues(
    run: Run, victim: str, named: str
) -> None:
    run.start()
    run.wait_for_steps(2)
    run.kill(victim)
    log = run.wait_for_end()
    assert re.search(named, log)
    reached = max(run.steps())
    whole = last_whole_step(run.folder / "checkpoints")
    assert whole >= reached - 1, "more than one step is lost"
    run.start()
    run.wait_for_steps(1)
    assert run.steps()[0] == whole + 1


@pytest.mark.parametrize("phase", ["_wait_for_next_poll", "_update_actor", "_save_checkpoint", "update_weights"])
def test_a_killed_launcher_takes_everything_along_and_the_same_command_continues(run: Run, phase: str) -> None:
    run.start()
    run.wait_for_steps(1)
    in_phase(run, phase)
    assert run.process is not None
    launcher, reached = run.process.pid, max(run.steps())
    run.kill_launcher()
    whole = last_whole_step(run.folder / "checkpoints")
    assert whole >= reached - 1, "more than one step is lost"
    run.start()
    run.wait_for_steps(1)
    assert run.steps()[0] == whole + 1
    started = psutil.Process(run.process.pid).create_time()
    assert [process for process in processes_of(run.folder) if process.create_time() < started] == []
    assert not list(Path("/tmp/ray").glob(f"session_*_{launcher}"))


@pytest.mark.parametrize("failing", [1, 3], ids=["1 of 4", "3 of 4"])
def test_failing_responses_leave_their_groups_and_training_goes_on(run: Run, failing: int) -> None:
    agents = "actor_rollout_ref.rollout.agent"
    run.start(
        f"{agents}.default_agent_loop=failing_agent",
        f"{agents}.agent_loop_config_path=tests/faults/agent_loops.yaml",
        FAULTY_RESPONSES=str(failing),
    )
    run.wait_for_steps(3)
    assert f"vote/failed_responses:{4 * failing}.0" in run.new_log()


def test_a_step_without_any_response_ends_the_run_with_the_reason(run: Run) -> None:
    agents = "actor_rollout_ref.rollout.agent"
    run.start(
        f"{agents}.default_agent_loop=failing_agent",
        f"{agents}.agent_loop_config_path=tests/faults/agent_loops.yaml",
        FAULTY_RESPONSES="4",
    )
    log = run.wait_for_end(SECONDS_TO_START)
    assert "this response always fails" in log and "no materializable trajectories" in log


@pytest.mark.parametrize(
    ("manager", "message"),
    [
        ("RaisingReward", "this reward always raises"),
        ("HangingReward", r"nothing has finished for 3\d s; 4 prompts wait for reward worker 0: figures-main-train"),
    ],
)
def test_a_reward_that_raises_or_never_returns_ends_the_run_with_the_reason(
    run: Run, manager: str, message: str
) -> None:
    source = "reward.reward_manager"
    run.start(f"{source}.source=importlib", f"{source}.module.path=pkg://faulty", f"{source}.name={manager}")
    log = run.wait_for_end(SECONDS_TO_START)
    assert re.search(message, log)


def test_resuming_exactly_at_an_epoch_boundary_trains_what_is_left(run: Run) -> None:
    run.start("data.train_max_samples=8", "trainer.total_training_steps=2")
    assert run.process is not None and run.process.wait(timeout=SECONDS_TO_START) == 0
    run.start("data.train_max_samples=8", "trainer.total_training_steps=4")
    assert run.process.wait(timeout=SECONDS_TO_START) == 0
    assert run.steps() == [3, 4]


@pytest.mark.parametrize("left", ["", "7"], ids=["empty", "of a checkpoint that is not there"])
def test_a_broken_tracker_leads_to_the_last_whole_checkpoint(run: Run, left: str) -> None:
    run.start("trainer.total_training_steps=2")
    assert run.process is not None and run.process.wait(timeout=SECONDS_TO_START) == 0
    (run.folder / "checkpoints" / TRACKER).write_text(left)
    run.start("trainer.total_training_steps=3")
    assert run.process.wait(timeout=SECONDS_TO_START) == 0
    assert run.steps() == [3] and "resuming from step 2" in run.new_log()


def test_a_full_disk_at_a_checkpoint_ends_the_run_and_the_last_whole_one_is_kept(run: Run) -> None:
    run.start()
    run.wait_for_steps(2)
    step = max(run.steps())
    for later in range(step + 3, step + 6):
        folder = run.folder / "checkpoints" / f"global_step_{later}" / "actor"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model_world_size_1_rank_0.pt").symlink_to("/dev/full")
    log = run.wait_for_end()
    # torch's own words for a write that did not reach the file.
    assert "torch.save(model_state_dict" in log and "inline_container.cc" in log
    whole = last_whole_step(run.folder / "checkpoints")
    assert whole == step + 2 and (run.folder / "checkpoints" / TRACKER).read_text() == str(whole)
    assert json.loads((run.folder / "checkpoints" / TRACKER).read_text()) == whole
