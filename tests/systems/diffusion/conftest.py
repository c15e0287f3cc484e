"""The tests of the system that needs PyTorch. To import it takes seconds, so `make test` does not even collect them."""

import pytest


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Ignore this folder if slow tests are left out."""
    return config.option.markexpr == "not slow" or None
