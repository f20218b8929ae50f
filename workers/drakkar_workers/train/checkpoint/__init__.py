"""Checkpoints: written in the background, published whole or not at all, checked before use."""
