"""A small random model and engines over it."""

import pytest

from drakkar_workers.serve.engine.build import EngineSettings, build
from support.tiny_models import save_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder of a small Llama."""
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny("llama", folder)
    return folder


@pytest.fixture
def engine_of(tiny):
    """Engines over the small Llama, with other settings than the default ones."""

    def make(**settings):
        fields = {"model": str(tiny), "dtype": "float32", "threads": 1, "cache_gib": 0.002}
        return build(EngineSettings(**{**fields, **settings}))

    return make
