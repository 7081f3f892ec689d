"""The prepared dataset: assembling, checking for flaws, writing and reading."""
