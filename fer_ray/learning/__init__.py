"""Training and prediction in plain PyTorch; nothing here needs Ray."""
