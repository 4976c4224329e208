"""Hyperparameter search over fine-tuning, with Keras Tuner. Imports `prl_keras`, never the reverse."""
