"""CustomResourceDefinitions and reference pages, generated from the pydantic models."""
