"""The training loop and its parts, without Ray."""
