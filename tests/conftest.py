"""For every test: shapes and types of lrm4d are checked, few threads, and where the shared data and a GPU are."""

import os
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook("lrm4d", "beartype.beartype")

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("LRM4D_SHARED") or ROOT.parent / "shared")

torch.set_num_threads(min(2, os.cpu_count() or 1))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data that no one on this project made; the test is skipped where it is not."""
    if not SHARED.is_dir():
        pytest.skip(f"no shared data in {SHARED}; set LRM4D_SHARED")
    return SHARED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU or the shared data where there is none."""
    skip_cuda = pytest.mark.skip(reason="needs an NVIDIA GPU")
    skip_shared = pytest.mark.skip(reason=f"no shared data in {SHARED}; set LRM4D_SHARED")
    for item in items:
        if "cuda" in item.keywords and not torch.cuda.is_available():
            item.add_marker(skip_cuda)
        if "shared" in item.keywords and not SHARED.is_dir():
            item.add_marker(skip_shared)


@pytest.fixture
def one_thread():
    """Two threads that wait for a busy core make the world fifty times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
