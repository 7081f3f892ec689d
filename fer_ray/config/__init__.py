"""Configurations of training runs and searches: schema, YAML files, and search spaces with their checks."""
