"""What a run was made with."""

import os
import platform
from importlib import metadata

_PACKAGES = (
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "keras-tuner",
    "tensorflow-datasets",
    "numpy",
    "scipy",
    "scikit-learn",
    "pillow",
)


def package_versions() -> dict[str, str]:
    """Versions of what decides a result to the last bit: Python, packages, processors, and TensorFlow's kernels."""
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    versions = {"python": platform.python_version(), "processors": str(len(mine))}
    versions["oneDNN"] = "off" if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0" else "on"
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
