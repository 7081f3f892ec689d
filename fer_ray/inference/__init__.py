"""A checkpoint in use: device, network, test-time augmentation, predictions and their scores."""
