"""``python -m fer_ray.models``: the same as ``fer-ray models``."""

import sys

from fer_ray.cli import main

main(["models", *sys.argv[1:]])
