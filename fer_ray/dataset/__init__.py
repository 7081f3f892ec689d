"""The prepared dataset: assembled, checked for flaws, written and read."""
