"""Facts about the machine and the software that produced a report."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from fairbeam.doctor.machine import processor


def environment() -> dict[str, str]:
    """Date, processor and the versions of what a result depends on."""
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
