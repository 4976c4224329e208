"""What a figure of speed was measured on, without names of hosts or users."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from prl_keras.processors import cores

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
PACKAGES = ("numpy", "tensorflow", "tensorflow-cpu", "keras", "torch")


def machine() -> dict[str, object]:
    found = {name: _version(name) for name in PACKAGES}
    return {
        "processor": _of_cpuinfo("model name") or platform.processor() or platform.machine(),
        "cores": cores(),
        "flags": [flag for flag in FLAGS if flag in flags()],
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.system(),
        "versions": {"python": platform.python_version()} | {name: one for name, one in found.items() if one},
    }


def bfloat16_is_fast() -> bool:
    """Whether the processor computes it itself; else it is many times slower than float32."""
    return not flags().isdisjoint({"avx512_bf16", "amx_bf16"})


def flags() -> set[str]:
    return set(_of_cpuinfo("flags").split())


def load() -> float:
    """Of the last minute, as it was when a measurement began; the measured work itself is part of it."""
    return round(os.getloadavg()[0], 1)


def _of_cpuinfo(key: str) -> str:
    """The first such entry; empty where there is none."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
