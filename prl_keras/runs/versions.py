"""What a run was made with."""

import os
import platform
from importlib import metadata

from prl_keras.startup import cores

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
    versions = {"python": platform.python_version(), "processors": str(cores())}
    versions["oneDNN"] = "off" if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0" else "on"
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
