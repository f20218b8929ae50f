"""A small random model behind a server of its own."""

import pytest

from support.serving import Server
from support.tiny_models import save_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder of a small Llama over bytes."""
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny("llama", folder)
    return folder


@pytest.fixture(scope="session")
def server(tiny):
    """One server for all tests that leave it as it was."""
    with Server(tiny, "--name", "tiny", "--cache-gib", "0.01", "--threads", "1") as one:
        yield one.started()
