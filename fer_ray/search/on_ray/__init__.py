"""All of a search that touches Ray Tune."""
