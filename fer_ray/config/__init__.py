"""What a training run or a search is: schema, YAML files, and search spaces with their checks."""
