"""Ray: connecting to it, what its nodes have and see, memory, failures and metrics."""
