"""Data sets as uint8 arrays in memory. Importing this package imports neither TensorFlow nor scikit-learn."""

from prl_keras.data.catalog import default_dataset, load_dataset, resolved
from prl_keras.data.images import load_image
from prl_keras.data.splits import Dataset, Split

__all__ = ["Dataset", "Split", "default_dataset", "load_dataset", "load_image", "resolved"]
