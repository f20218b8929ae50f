"""InferenceServices, where the cluster has that kind."""
