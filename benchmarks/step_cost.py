"""Start-up, step time and memory of the tiny recipe: ours, plain veRL with its naive reward manager, and TRL.

    .venv/bin/python benchmarks/step_cost.py [--steps 6] [--overrides KEY=VALUE ...] [ours] [plain] [trl]

Runs the contenders one after the other, in five minutes on two idle cores. All train the same model on the same data in
steps of 32 prompts x 8 responses, without validation. Overrides change the recipe for all.

ours    `mmupt_tiny`.
plain   The same recipe, launcher and trainer, with the changes of `PLAIN` alone: veRL's agent loop, its manager, replay
        buffer and reward manager, and the default process start of Ray and vLLM. Its reward is `compute_score` below,
        because a naive reward manager cannot vote. What veRL needs to run on a CPU (platform, engine, patches) is
        shared, and so are settings that suit any CPU run: one process of each kind and one thread where veRL's
        defaults are eight, no gradient checkpointing, no compiled actor. vLLM compiles at its start and caches a part
        of that on disk, so the first run on a machine starts more slowly.
trl     `benchmarks/trl_grpo.py`: one process, no Ray, no vLLM, no transfer of weights or data. Needs Python 3.11 or
        newer, on which `make setup` installs TRL.

Start-up lasts from the launch of the command to the start of the first step. Step time lasts from the end of a step to
the end of the next; the first step warms up. Memory is the peak PSS of all processes together
(`benchmarks/peak_memory.py`). Responses get longer as the policy learns, so their length is printed, too.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from mmupt.baselines.dpo import TRL_FOLDER
from verl_ext.answers import extract_answer
from verl_ext.metric_names import RESPONSE_LENGTH, STEP_SECONDS

HERE = Path(__file__).resolve().parent
COMMON = ("trainer.val_before_train=False", "trainer.test_freq=-1", "mmupt.evaluation_files=null")
PLAIN = (
    "actor_rollout_ref.rollout.agent.default_agent_loop=single_turn_agent",
    "actor_rollout_ref.rollout.agent.agent_loop_manager_class=null",
    "trainer.v1.sampler.custom_sampler.path=null",
    "trainer.v1.sampler.custom_sampler.name=null",
    "reward.reward_manager.name=naive",
    f"reward.custom_reward_function.path={HERE / 'step_cost.py'}",
    "reward.custom_reward_function.name=compute_score",
    "~actor_rollout_ref.rollout.engine_kwargs.vllm.distributed_executor_backend",
    "~ray_kwargs.ray_init.runtime_env.env_vars.TORCHDYNAMO_DISABLE",
    "~ray_kwargs.ray_init.runtime_env.env_vars.VLLM_ENABLE_V1_MULTIPROCESSING",
    "~ray_kwargs.ray_init.runtime_env.env_vars.RAY_prestart_worker_first_driver",
    "mmupt.fork_workers=False",
)


def compute_score(solution_str: str, **_: Any) -> float:
    """Return 1.0 for a response with an answer, else 0.0: a reward function for veRL that needs no ground truth."""
    return float(extract_answer(solution_str) is not None)


class Run(NamedTuple):
    """Seconds until the first step, seconds and mean response length (tokens) of later steps, and peak GiB."""

    start_up: float
    steps: list[float]
    tokens: list[float]
    peak: float


def measure_memory(command: list[str | Path], log: Path, **environment: str) -> float:
    """Run a command with its output in `log`; return its peak memory in GiB.

    Raises:
        SystemExit: the command failed; the message has its last output.
    """
    with log.open("w") as output:
        status = subprocess.run(
            [sys.executable, HERE / "peak_memory.py", *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        ).returncode
    lines = log.read_text(errors="replace").splitlines()
    if status:
        sys.exit("\n".join([*lines[-50:], f"error: {log.stem} ended with status {status}; see its output above"]))
    return json.loads(lines[-1])["peak_gib"]


def run_verl(folder: Path, steps: int, overrides: Sequence[str]) -> Run:
    """Run the tiny recipe with overrides and read its times from the event file."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    command: list[str | Path] = [sys.executable, "-m", "mmupt", "train", "mmupt_tiny", *COMMON, *overrides]
    start = time.time()
    peak = measure_memory(
        [*command, f"mmupt.run_folder={folder}", f"trainer.total_training_steps={steps}"],
        folder.with_suffix(".log"),
    )
    (file,) = folder.glob("tensorboard/**/events.out.tfevents.*")
    events = EventAccumulator(str(file)).Reload()
    seconds = events.Scalars(STEP_SECONDS)
    ends = [event.wall_time for event in seconds]
    return Run(
        ends[0] - seconds[0].value - start,
        [end - begin for begin, end in pairwise(ends)],
        [event.value for event in events.Scalars(RESPONSE_LENGTH)][1:],
        peak,
    )


def run_trl(folder: Path, steps: int, overrides: Sequence[str]) -> Run:
    """Run `trl_grpo.py` and read its times from its output."""
    log = folder.with_suffix(".log")
    command: list[str | Path] = [sys.executable, HERE / "trl_grpo.py", "--steps", str(steps), *overrides]
    path = os.pathsep.join(filter(None, [str(TRL_FOLDER), os.environ.get("PYTHONPATH")]))
    peak = measure_memory(command, log, PYTHONPATH=path)
    result = json.loads(log.read_text(errors="replace").splitlines()[-2])
    return Run(result["start_up"], result["steps"][1:], result["response_tokens"][1:], peak)


def summary(run: Run) -> dict[str, Any]:
    """Return the medians of a run, and the quartiles of its step."""
    low, _, high = statistics.quantiles(run.steps, n=4, method="inclusive")
    return {
        "start-up s": round(run.start_up, 1),
        "step s": round(statistics.median(run.steps), 2),
        "step s, quartiles": [round(low, 2), round(high, 2)],
        "tokens per response": round(statistics.median(run.tokens), 1),
        "peak GiB": round(run.peak, 1),
    }


def main() -> None:
    """Run the contenders one after the other; print their figures and ratios as JSON."""
    contenders = {
        "ours": run_verl,
        "plain": lambda folder, steps, overrides: run_verl(folder, steps, [*PLAIN, *overrides]),
        "trl": run_trl,
    }
    parser = argparse.ArgumentParser(description="Cost of the tiny recipe, against plain veRL and TRL.")
    parser.add_argument("contenders", nargs="*", help=f"any of {', '.join(contenders)} (default: all)")
    parser.add_argument("--steps", type=int, default=6, help="steps to measure, after a warm-up step (%(default)s)")
    parser.add_argument("--overrides", nargs="+", default=[], metavar="KEY=VALUE", help="recipe overrides for all")
    arguments = parser.parse_args()
    if unknown := set(arguments.contenders) - set(contenders):
        parser.error(f"unknown contenders: {', '.join(sorted(unknown))}; choose from {', '.join(contenders)}")
    table: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.contenders or contenders:
            print(f"{name} ...", file=sys.stderr, flush=True)
            table[name] = summary(contenders[name](Path(folder) / name, arguments.steps + 1, arguments.overrides))
    result: dict[str, Any] = dict(table)
    if ours := table.pop("ours", None):
        for name, other in table.items():
            result[f"{name} / ours"] = {
                key: round(other[key] / ours[key], 2) for key in ("start-up s", "step s", "peak GiB")
            }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
