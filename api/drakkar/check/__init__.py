"""Checks of nodes before jobs run on them: what is measured, and what it means."""
