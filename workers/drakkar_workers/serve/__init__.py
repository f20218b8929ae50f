"""Serving: an inference engine and its OpenAI-compatible server."""
