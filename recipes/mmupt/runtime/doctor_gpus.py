"""GPU checks of `mmupt doctor`: devices and driver, without importing torch."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path
from typing import Any

from mmupt.hardware import OLDEST_DRIVERS
from mmupt.runtime.doctor_findings import Finding

# Timeout of nvidia-smi.
SMI_SECONDS = 10


@dataclass(frozen=True)
class Gpu:
    """A GPU as listed by nvidia-smi, with memory in MiB."""

    name: str
    total: int
    used: int
    driver: str


def ask_nvidia_smi() -> tuple[list[Gpu], str | None]:
    """Return the GPUs of this machine and the error of nvidia-smi; no error if there is no driver at all."""
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
    # nvidia-smi prints "[N/A]" for a GPU that shares the machine's memory, or if the driver does not report it.
    total, used = (int(field) if field.isdecimal() else 0 for field in fields[1:3])
    return Gpu(fields[0], total, used, fields[3])


def cuda_of_torch() -> str | None:
    """Return torch's CUDA version without importing torch; None for a CPU build or without torch."""
    torch = find_spec("torch")
    folders = (torch and torch.submodule_search_locations) or ()
    files = [file for folder in folders if (file := Path(folder, "version.py")).is_file()]
    cuda = run_path(str(files[0])).get("cuda") if files else None
    return cuda if isinstance(cuda, str) else None


def check_gpus(gpus: Sequence[Gpu], smi_error: str | None, has_vllm_for_cpu: bool) -> Iterator[Finding]:
    """Check that the installed vLLM has the GPUs it needs, and that no other process uses them."""
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
                "none, but vLLM is a GPU build",
                "DEVICE=cpu make setup, for the CPU recipes",
            )
        return
    for number, gpu in enumerate(gpus):
        found = f"{gpu.name}, {gpu.total / 1024:.0f} GiB, {gpu.used / 1024:.1f} in use"
        if gpu.used > 1024:
            yield Finding(f"GPU {number}", "warning", found, "`nvidia-smi` lists the processes that use it: end them")
        else:
            yield Finding(f"GPU {number}", "ok", found)
    if has_vllm_for_cpu:
        yield Finding("vllm", "warning", "a CPU build, which uses no GPU", "DEVICE=cuda make setup")


def check_driver(driver: str, cuda: str | None, *, is_used: bool) -> Iterator[Finding]:
    """Check a driver against torch's CUDA version, as `cuda_of_torch` returns it.

    `is_used`: whether torch can use a GPU, which NVIDIA's forward compatibility packages allow with an older driver.
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
    """Check how many of the GPUs torch can use; `seen` is the result of the child process."""
    if seen["error"] is not None or not seen["gpus"]:
        yield Finding(
            "GPUs of torch",
            "problem",
            f"none of {gpus}: {seen['error'] or 'CUDA is not available'}",
            "see the lines on driver and packages, and check CUDA_VISIBLE_DEVICES",
        )
    else:
        yield Finding("GPUs of torch", "ok", f"{seen['gpus']} of {gpus}")
