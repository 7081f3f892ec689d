"""Prediction with checkpoints: device, network, test-time augmentation, calibration and scores."""
