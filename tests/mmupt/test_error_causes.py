"""The cause of an error is found in the output of a command."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmupt.console.error_causes import find_cause

RAY = """\
(TaskRunnerV1 pid=7) step:1 - vote/majority_ratio:0.5
Traceback (most recent call last):
  File "/x/recipes/mmupt/training/recipe_run.py", line 189, in run_trainer
    run_ppo(config)
ray.exceptions.RayTaskError(ValueError): \x1b[36mray::TaskRunnerV1.run()\x1b[39m (pid=7, ip=10.0.0.1)
  File "/x/lib/python3.11/site-packages/verl/trainer/main_ppo.py", line 150, in run
    self.trainer.fit(self.agent_loop_manager)
  File "/x/lib/python3.11/site-packages/verl/trainer/ppo/ray.py", line 33, in fit
    raise ValueError("no such key")
    ~~~~~~~~^^
ValueError: no such key
"""

FORWARDED = """\
\x1b[36m(WorkerDict pid=8)\x1b[0m Traceback (most recent call last):
\x1b[36m(WorkerDict pid=8)\x1b[0m   File "/x/site-packages/torch/nn.py", line 3, in step
\x1b[36m(AgentLoop pid=9)\x1b[0m INFO: all is well
\x1b[36m(WorkerDict pid=8)\x1b[0m torch.OutOfMemoryError: CUDA out of memory
\x1b[36m(AgentLoop pid=9)\x1b[0m INFO: still well
"""

PYDANTIC = """\
Traceback (most recent call last):
  File "<string>", line 1, in <module>
pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, No sleep mode
"""


@pytest.mark.parametrize(
    ("log", "cause", "where"),
    [
        (RAY, "ValueError: no such key", "verl/trainer/ppo/ray.py, line 33, in fit"),
        (FORWARDED, "torch.OutOfMemoryError: CUDA out of memory", "torch/nn.py, line 3, in step"),
        (
            PYDANTIC,
            "pydantic_core.ValidationError: 1 validation error for ModelConfig Value error, No sleep mode",
            "<string>, line 1, in <module>",
        ),
        (f"{RAY}error: runs/x has no checkpoint\n", "runs/x has no checkpoint", None),
        (f"error: an earlier one\n{RAY}", "ValueError: no such key", "verl/trainer/ppo/ray.py, line 33, in fit"),
        (
            "(TaskRunnerV1 pid=7) ERROR:2026-11-27 13:06:13,642:watchdog: the run ends: died: WorkerDict_0. "
            'The trainer stands at\n(TaskRunnerV1 pid=7)   File "fit.py", line 3, in fit\n'
            'Traceback (most recent call last):\n  File "a.py", line 1, in f\nray.exceptions.ActorDiedError: gone\n',
            "died: WorkerDict_0",
            None,
        ),
        (
            'Traceback\n  File "a.py", line 1, in f\nray.exceptions.ActorDiedError: The actor died.\n\tclass_name: A\n'
            "\tpid: 7\nIts process was killed.\n",
            "ray.exceptions.ActorDiedError: The actor died. Its process was killed.",
            "a.py, line 1, in f",
        ),
        ("one\ntwo\n\n", "two", None),
        ("", "it printed nothing", None),
    ],
)
def test_find_cause_returns_the_last_error_and_its_place(log: str, cause: str, where: str | None) -> None:
    assert find_cause(log) == (cause, where)


@given(st.text())
def test_every_log_yields_a_cause_on_one_line(log: str) -> None:
    cause, _ = find_cause(log)
    assert cause and "\n" not in cause
