"""Checkpoints in memory: written by a trainer, kept by its agent, copied to another node. No torch."""
