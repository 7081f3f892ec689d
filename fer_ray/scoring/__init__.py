"""Labelling large folders: inputs, manifest, chunks, parts, totals and summary."""
