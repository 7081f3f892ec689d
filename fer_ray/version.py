"""The version of the package, in a module of its own so that low ones need not import the package's face."""

from importlib.metadata import version

VERSION = version("fer_ray")
