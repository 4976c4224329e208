"""Encoders, heads, and how they are stored. Importing this imports Keras."""

from prl_keras.models.heads import build_classifier, classification_head, projection_head
from prl_keras.models.mlp import mlp_encoder
from prl_keras.models.resnet import resnet18
from prl_keras.models.storage import load_encoder

__all__ = [
    "build_classifier",
    "classification_head",
    "load_encoder",
    "mlp_encoder",
    "projection_head",
    "resnet18",
]
