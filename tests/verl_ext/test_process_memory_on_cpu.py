"""The setup of every process of a run: rare garbage collection, huge pages, and freed memory that is returned."""

import gc
import os
import subprocess
import sys

import ray

from mmupt.compose import load_recipe


def test_the_workers_of_a_cpu_run_collect_garbage_rarely() -> None:
    runtime_env = load_recipe("mmupt_tiny")[0].ray_kwargs.ray_init.runtime_env
    ray.init(
        num_cpus=1,
        include_dashboard=False,
        runtime_env={"worker_process_setup_hook": runtime_env.worker_process_setup_hook},
    )
    # From a new process, as another test may have changed the threshold of this one.
    code = "import gc; print(gc.get_threshold()[0])"
    default = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    try:
        assert ray.get(ray.remote(lambda: gc.get_threshold()).remote())[0] > default
    finally:
        ray.shutdown()


def test_other_recipes_have_no_setup_hook() -> None:
    assert load_recipe("mmupt_smoke")[0].ray_kwargs.ray_init.runtime_env.worker_process_setup_hook is None


def test_the_hook_imports_nothing_large_before_it_runs() -> None:
    code = "import sys, verl_ext.process_memory; print(sorted({'torch', 'verl', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_large_tensors_of_every_recipe_may_be_in_huge_pages() -> None:
    code = """
import re, torch
tensor = torch.empty(64 << 20, dtype=torch.uint8)
for mapping in re.split(r"(?m)^(?=[0-9a-f]+-)", open("/proc/self/smaps").read())[1:]:
    start, end = (int(bound, 16) for bound in mapping.split()[0].split("-"))
    if start <= tensor.data_ptr() < end:
        print("hg" in mapping.partition("VmFlags:")[2].split())
"""
    variables = load_recipe("mmupt_smoke")[0].ray_kwargs.ray_init.runtime_env.env_vars
    environment = os.environ | {name: str(value) for name, value in variables.items()}
    # hg is the kernel's flag of a mapping for which huge pages are requested.
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment).stdout == "True\n"
    )


def test_freed_memory_between_blocks_that_stay_goes_back_to_the_system() -> None:
    code = """
import ctypes
from verl_ext.process_memory import return_freed_memory
# As in a process that has freed larger blocks, blocks of half a megabyte come from the heap.
ctypes.CDLL(None).mallopt(-3, 32 << 20)
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 >> 20
large, small = [], []
for _ in range(200):
    large.append(b"1" * (1 << 19))
    small.append(b"1" * 100_000)
peak = resident()
large.clear()
freed = resident()
return_freed_memory()
print(peak - freed, freed - resident())
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    at_once, by_the_call = map(int, output.split())
    assert at_once < 20 and by_the_call > 70
