"""Checks of `mmupt doctor` on GPUs and their driver, without importing torch."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path
from typing import Any

from mmupt.hardware import OLDEST_DRIVERS
from mmupt.runtime.doctor_findings import Finding

# Longest wait for nvidia-smi.
SMI_SECONDS = 10


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi lists it; memory in MiB."""

    name: str
    total: int
    used: int
    driver: str


def ask_nvidia_smi() -> tuple[list[Gpu], str | None]:
    """The GPUs of this machine, and what nvidia-smi says where it fails; None where there is no driver at all."""
    fields = "name,memory.total,memory.used,driver_version"
    try:
        asked = subprocess.run(
            ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=SMI_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        has_driver = Path("/proc/driver/nvidia/version").exists()
        return [], "there is a driver, but no nvidia-smi" if has_driver else None
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], f"nvidia-smi: {error}"
    if asked.returncode != 0:
        return [], f"nvidia-smi: {' '.join((asked.stdout + asked.stderr).split())}"
    return [gpu for line in asked.stdout.splitlines() if (gpu := _gpu(line)) is not None], None


def _gpu(line: str) -> Gpu | None:
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != 4:
        return None
    # "[N/A]" where a GPU shares the memory of the machine, or its driver does not say.
    total, used = (int(field) if field.isdecimal() else 0 for field in fields[1:3])
    return Gpu(fields[0], total, used, fields[3])


def cuda_of_torch() -> str | None:
    """The version of CUDA that torch is built for, read without importing torch; None for CPU or without torch."""
    torch = find_spec("torch")
    folders = (torch and torch.submodule_search_locations) or ()
    files = [file for folder in folders if (file := Path(folder, "version.py")).is_file()]
    cuda = run_path(str(files[0])).get("cuda") if files else None
    return cuda if isinstance(cuda, str) else None


def check_gpus(gpus: Sequence[Gpu], smi_error: str | None, has_vllm_for_cpu: bool) -> Iterator[Finding]:
    """Check that there are GPUs where vLLM needs them, and that nobody else uses them."""
    if not gpus:
        if smi_error is not None:
            yield Finding(
                "GPUs",
                "problem",
                smi_error,
                "restart after an update of the driver; in a container, start it with --gpus all",
            )
        elif has_vllm_for_cpu:
            yield Finding("GPUs", "ok", "none: recipes run with hardware=cpu")
        else:
            yield Finding(
                "GPUs",
                "warning",
                "none, and vLLM is not the one for CPU",
                "DEVICE=cpu make setup, for recipes of a CPU",
            )
        return
    for number, gpu in enumerate(gpus):
        found = f"{gpu.name}, {gpu.total / 1024:.0f} GiB, {gpu.used / 1024:.1f} in use"
        if gpu.used > 1024:
            yield Finding(f"GPU {number}", "warning", found, "`nvidia-smi` lists the processes that use it: end them")
        else:
            yield Finding(f"GPU {number}", "ok", found)
    if has_vllm_for_cpu:
        yield Finding("vllm", "warning", "is the one for CPU, so that no GPU is used", "DEVICE=cuda make setup")


def check_driver(driver: str, cuda: str | None, *, is_used: bool) -> Iterator[Finding]:
    """Check a driver against the CUDA that torch is built for, as `cuda_of_torch` returns it.

    `is_used` says whether torch can use a GPU, as it can by NVIDIA's packages for forward compatibility.
    """
    major = cuda and cuda.partition(".")[0]
    oldest = OLDEST_DRIVERS.get(int(major)) if major and major.isdecimal() else None
    if cuda is None:
        yield Finding("driver", "problem", f"{driver}, but torch is built without CUDA", "DEVICE=cuda make setup")
    elif oldest is not None and int(driver.partition(".")[0]) < oldest:
        yield Finding(
            "driver",
            "warning" if is_used else "problem",
            f"{driver}, but torch is built for CUDA {cuda}, which needs {oldest} or newer",
            f"install driver {oldest} or newer",
        )
    else:
        yield Finding("driver", "ok", f"{driver}, for CUDA {cuda} of torch")


def check_torch(seen: Mapping[str, Any], gpus: int) -> Iterator[Finding]:
    """Check how many of the GPUs torch can use, by what the child saw."""
    if seen["error"] is not None or not seen["gpus"]:
        yield Finding(
            "GPUs of torch",
            "problem",
            f"none of {gpus}: {seen['error'] or 'CUDA is not available'}",
            "see the lines on driver and packages, and correct CUDA_VISIBLE_DEVICES",
        )
    else:
        yield Finding("GPUs of torch", "ok", f"{seen['gpus']} of {gpus}")
