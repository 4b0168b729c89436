"""What the tests start, and end by its process id."""

import pytest

from certificates import Certificates
from destination import Destination
from harness import Daemon
from prometheus import Prometheus


@pytest.fixture
def ending():
    """A function that takes something to end when the test does, and gives it back."""
    begun = []

    def keep(thing):
        begun.append(thing)
        return thing

    yield keep
    for thing in reversed(begun):
        thing.end()


@pytest.fixture
def destination(ending):
    return ending(Destination())


@pytest.fixture
def daemon(ending, destination, tmp_path):
    return ending(Daemon(tmp_path / "log", destination.endpoint))


@pytest.fixture
def certificates(tmp_path):
    return Certificates(tmp_path / "certificates")


@pytest.fixture
def scrape(ending, tmp_path):
    """A function that starts a Prometheus that scrapes an address."""
    return lambda address: ending(Prometheus(tmp_path / "prometheus", address))
