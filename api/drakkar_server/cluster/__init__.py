"""Live copies of what the cluster holds, and what is told of nodes and queues."""
