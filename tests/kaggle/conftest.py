"""A server on this machine, and the unmodified kaggle client in the test's own process."""

import os

import pytest

from pipeline.kaggle import client
from tools.kaggle_server.server import KaggleServer


@pytest.fixture
def server():
    """A server without answers; at the end, nothing may have tried to reach another."""
    with KaggleServer() as server:
        yield server
        assert not [request for request in server.requests if request.method == "CONNECT"], "it tried the real site"


@pytest.fixture
def account(server, tmp_path, monkeypatch):
    """`account()` lets the client of this process use the server, with an empty home and an account; it returns home.

    `account(credentials=False, NAME="value")` sets no account but these variables. A retry does not wait.
    """
    home = tmp_path / "home"
    home.mkdir()

    def prepare(credentials: bool = True, **variables: str):
        for name in [name for name in os.environ if name.startswith(("KAGGLE_", "XDG_"))]:
            monkeypatch.delenv(name)
        for name, value in (server.environment(home, credentials) | variables).items():
            monkeypatch.setenv(name, value)
        client.client.cache_clear()
        return home

    monkeypatch.setattr(client, "PAUSES", (0.0, 0.0, 0.0))
    yield prepare
    client.client.cache_clear()
