"""The version of the package, in a module of its own so that low ones need not import the package's face."""

VERSION = "0.1.0"
