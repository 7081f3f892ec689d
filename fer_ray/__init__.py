"""Train, tune and run image classifiers for facial expressions on Ray."""

from importlib.metadata import version

__version__ = version("fer_ray")
