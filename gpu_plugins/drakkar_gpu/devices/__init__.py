"""Accelerators of each vendor behind one interface."""
