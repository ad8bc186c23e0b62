"""Experiment trackers: each trial is a run of TensorBoard, MLflow or Weights & Biases."""
