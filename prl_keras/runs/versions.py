"""What a run was made with."""

import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path

from prl_keras.processors import cores

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
    chosen = {"0": "off", "false": "off", "1": "on", "true": "on"}  # unset where TensorFlow came before this package
    versions["oneDNN"] = chosen.get(os.environ.get("TF_ENABLE_ONEDNN_OPTS", "").lower(), "as TensorFlow chooses")
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def code_digest() -> str:
    """Of this program's own source: a version says nothing of a clone that was changed or not updated."""
    digest, root = hashlib.sha256(), Path(__file__).parents[1]
    for file in sorted(root.rglob("*.py")):
        digest.update(file.relative_to(root).as_posix().encode() + file.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:12]
