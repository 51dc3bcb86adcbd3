"""What Ray has every process of a run do first."""

import gc
import subprocess
import sys

import ray

from recipes.mmupt.compose import load_recipe


def test_the_workers_of_a_cpu_run_search_for_garbage_rarely() -> None:
    runtime_env = load_recipe("mmupt_tiny")[0].ray_kwargs.ray_init.runtime_env
    ray.init(
        num_cpus=1,
        include_dashboard=False,
        runtime_env={"worker_process_setup_hook": runtime_env.worker_process_setup_hook},
    )
    try:
        assert ray.get(ray.remote(lambda: gc.get_threshold()).remote()) > gc.get_threshold()
    finally:
        ray.shutdown()


def test_ray_starts_processes_as_ever_for_recipes_that_do_not_ask() -> None:
    assert load_recipe("mmupt_smoke")[0].ray_kwargs.ray_init.runtime_env.worker_process_setup_hook is None


def test_the_hook_imports_nothing_large_before_it_runs() -> None:
    code = "import sys, verl_ext.process; print(sorted({'torch', 'verl', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
