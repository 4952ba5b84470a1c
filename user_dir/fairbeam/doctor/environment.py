"""Software and processor of this machine, without torch."""

import importlib.util
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "fairbeam", "torch", "numpy", "sentencepiece", "sacrebleu", "safetensors",
    "fairseq", "fairseq-fixed", "omegaconf", "hydra-core", "transformers",
)  # fmt: skip
"""Packages whose versions are shown."""


def environment() -> dict[str, str]:
    """Return date, processor and versions of the packages that a result depends on."""
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{processor()}, {len(os.sched_getaffinity(0))} cores",
        "python": platform.python_version(),
    }
    for package in ("torch", "fairbeam", "fairseq-fixed", "sentencepiece", "sacrebleu"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts


def versions() -> dict[str, str]:
    """Return versions of python and of the installed ``PACKAGES``."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def import_error(module: str, timeout: float = 300) -> str | None:
    """Return the last line of the error of ``import module`` in a fresh interpreter; None if it works.

    A subprocess, because an import can crash the interpreter or leave it changed.
    """
    command = [sys.executable, "-P", "-c", f"import {module}"]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace", timeout=timeout)
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout:.0f} s"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"the interpreter exited with status {done.returncode}"


def is_installed(module: str) -> bool:
    """Return whether a top-level module of this name is installed, without importing it."""
    return importlib.util.find_spec(module) is not None


def processor() -> str:
    """Return the processor's name in ``/proc/cpuinfo``, or its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.machine()
