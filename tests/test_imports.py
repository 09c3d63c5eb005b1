"""The import rule of the house, read from the sources: nested imports count too."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEVELS = (
    ("rotations", "checkpoint", "config", "operators", "pretrained"),
    ("cameras", "gaussians3d", "video", "losses"),
    ("views", "trajectories", "rasterizer", "metrics"),
    ("gaussians4d", "scenes", "shards"),
    ("reconstruction", "generation", "export"),
    ("refinement",),
    ("pipeline",),
    ("info", "doctor"),
    ("cli",),
)
"""Rooms of lrm4d, low to high. A room imports lower rooms and itself."""
LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
HOME = {
    "gsplat": ("lrm4d/rasterizer/cuda.py",),
    "xformers": ("lrm4d/reconstruction/attention.py",),
    "triton": ("lrm4d/reconstruction/evidence_cuda.py",),
    "deepspeed": ("train/engine.py",),
    "webdataset": ("lrm4d/shards/", "data_tools/"),
    "diffusers": ("lrm4d/generation/",),
    "transformers": ("lrm4d/generation/",),
    "peft": ("lrm4d/generation/",),
    "OpenEXR": ("lrm4d/generation/depth/",),
    "viser": ("lrm4d/export/",),
    "typer": ("lrm4d/cli/",),
}
"""Where a package may be imported: files, and folders with a slash at the end."""
PROGRAMS = ("train", "eval", "data_tools")
VAGUE = {"utils", "util", "misc", "common", "helpers", "helper", "tools"}
SOURCES = sorted(path for folder in ("lrm4d", *PROGRAMS) for path in (ROOT / folder).rglob("*.py"))


def imports_of(source: str) -> set[str]:
    """Every module that a source imports, wherever in it; "from a import b" gives both a and a.b."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}: write the whole path"
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return modules


def room_of(module: str) -> str | None:
    """The room of lrm4d that a dotted module lies in."""
    match = re.match(r"lrm4d\.(\w+)", module)
    return match[1] if match and match[1] != "__version__" else None


def breaches(path: str, source: str) -> list[str]:
    """What a file's imports do against the rule, in words; path is relative to the repository."""
    found = []
    room = room_of(path.removesuffix(".py").replace("/", "."))
    for module in sorted(imports_of(source)):
        top, other = module.split(".")[0], room_of(module)
        homes = HOME.get(top)
        if homes and not any(path == home or (home.endswith("/") and path.startswith(home)) for home in homes):
            found.append(f"{path} imports {module}, which belongs in {' or '.join(homes)}")
        if path.startswith("lrm4d/") and top in PROGRAMS:
            found.append(f"{path} imports {module}: the library imports no program")
        if room and room != "__init__" and other and other != room and LEVEL_OF[other] >= LEVEL_OF[room]:
            found.append(f"{path} (level {LEVEL_OF[room]}) imports {module} (level {LEVEL_OF[other]})")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_the_levels_and_heavy_packages_stay_at_home(path: Path):
    assert not breaches(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))


def test_every_room_has_a_level():
    rooms = {path.stem for path in (ROOT / "lrm4d").glob("*.py")} | {
        path.parent.name for path in (ROOT / "lrm4d").glob("*/__init__.py")
    }
    assert rooms - {"__init__"} <= set(LEVEL_OF)


def test_no_file_has_a_name_that_says_nothing():
    names = {part for path in SOURCES for part in path.relative_to(ROOT).with_suffix("").parts}
    assert not names & VAGUE


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("lrm4d/cameras.py", "from lrm4d.views import Views"),
        ("lrm4d/cameras.py", "from lrm4d import views"),
        ("lrm4d/views.py", "def f():\n    import lrm4d.rasterizer"),
        ("lrm4d/scenes/scene.py", "from lrm4d.pipeline import Reconstructor"),
        ("lrm4d/rasterizer/cpu.py", "try:\n    import gsplat\nexcept ImportError:\n    pass"),
        ("lrm4d/reconstruction/model.py", "from xformers.ops import memory_efficient_attention"),
        ("train/trainer.py", "import deepspeed.comm"),
        ("lrm4d/pipeline.py", "def f():\n    from train.engine import Engine"),
        ("lrm4d/metrics.py", "import eval"),
    ],
)
def test_the_rule_notices(path, source):
    assert breaches(path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("lrm4d/rasterizer/cuda.py", "import gsplat"),
        ("lrm4d/rasterizer/cuda.py", "from lrm4d.rasterizer import rendering"),
        ("train/engine.py", "import deepspeed\nfrom lrm4d.pipeline import Reconstructor"),
        ("lrm4d/__init__.py", "from lrm4d.pipeline import Reconstructor"),
        ("lrm4d/cli/app.py", "from lrm4d import __version__"),
    ],
)
def test_the_rule_allows(path, source):
    assert not breaches(path, source)
