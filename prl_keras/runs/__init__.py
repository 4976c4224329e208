"""The life of a run on disk. Its folder is re-exported here; the rest is imported from the module it lives in."""

from prl_keras.runs.folder import (
    Run,
    create_run,
    find_run,
    gives_features,
    has_classifier,
    has_encoder,
    in_folder,
    is_finished,
    is_kept,
    is_taught,
    list_runs,
    names_classes,
    reference_to,
    scan_runs,
)

__all__ = [
    "Run",
    "create_run",
    "find_run",
    "gives_features",
    "has_classifier",
    "has_encoder",
    "in_folder",
    "is_finished",
    "is_kept",
    "is_taught",
    "list_runs",
    "names_classes",
    "reference_to",
    "scan_runs",
]
