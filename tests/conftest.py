"""Fixtures that every test gets: one thread, and the same random numbers each time."""

import sys

import pytest
import torch
from studio_fixtures import (  # noqa: F401 - for all modules
    gate,
    page,
    page_gate,
    studio,
    tiny_folder,
    upload_folder,
)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _accelerate_anew():
    """Accelerate holds on to one precision in a process; the next test may want another."""
    yield
    if accelerate := sys.modules.get("accelerate.state"):
        accelerate.AcceleratorState._reset_state(reset_partial_state=True)
