"""Where inputs and outputs are, on a disk or in an object store, and how files are replaced whole."""
