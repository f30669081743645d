"""What unit tests of several modules share."""

import pytest


@pytest.fixture(scope="session")
def fabric():
    """One CPU thread, full precision: sums have the same bits in every run."""
    from clotline.training import make_fabric

    return make_fabric("32-true", gpus=0, threads=1)
