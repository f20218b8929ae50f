"""Models in plain torch, one file each."""
