"""Measures a node: how fast its devices compute, and its links to other nodes."""
