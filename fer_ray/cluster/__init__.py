"""Ray: connection, resources and paths of nodes, memory, failures, metrics, and the patches of Ray."""
