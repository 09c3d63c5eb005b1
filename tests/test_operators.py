import subprocess
import sys

import pytest

from lrm4d import operators


def test_without_a_compiler_the_reference_stands_in_with_one_warning(tmp_path):
    script = """
import warnings, torch
from lrm4d import operators
from lrm4d.rasterizer import choose_backend
from lrm4d.reconstruction import evidence
from rasterizer_scenes import random_scene
operators.packaged_name = lambda: "nothing.so"
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    backends = {choose_backend(random_scene(0, 3)[0]) for _ in range(3)}
ours = [str(w.message) for w in caught if "lrm4d" in str(w.message)]
assert backends == {"reference"}, backends
assert not evidence.load_operators()
assert len(ours) == 1 and "apt install g++" in ours[0], ours
"""
    root = operators.PACKAGE.parent
    environment = {"PATH": "", "LRM4D_CACHE": str(tmp_path), "PYTHONPATH": f"{root}:{root / 'tests'}"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_failing_compiler_is_quoted(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(RuntimeError, match=r"false .* failed"):
        operators.compile_operators(tmp_path / "operator.so")
    assert list(tmp_path.iterdir()) == []
