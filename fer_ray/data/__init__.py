"""Formats of face images, the prepared dataset, and how it is sharded."""
