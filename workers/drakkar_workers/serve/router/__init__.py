"""The data plane in front of a service's replicas: picks one, forwards, retries, holds, counts."""
