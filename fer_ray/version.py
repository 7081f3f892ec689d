"""The version of fer_ray."""

VERSION = "0.1.0"
