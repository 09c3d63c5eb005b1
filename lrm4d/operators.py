"""The C++ operators of all rooms as one library: found beside the package, or compiled at first use, or done without.

Compiled with the machine's C++ compiler against PyTorch's stable ABI, by setup.py when a package is built and by
load_operators where it was not. setup.py loads this file alone, so it imports nothing of the package.
"""

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

import torch

PACKAGE = Path(__file__).resolve().parent
ROOMS = (
    PACKAGE / "rasterizer/csrc",
    PACKAGE / "reconstruction/csrc",
    PACKAGE / "generation/csrc",
    PACKAGE / "refinement/csrc",
)
TORCH_TARGET = "0x020a000000000000"
"""PyTorch 2.10: the oldest whose stable ABI has all we use. One binary serves every later one."""
FLAGS = ("-std=c++20", "-O3", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", "-fvisibility=hidden")
X86 = ("x86_64", "AMD64")


def find_compiler() -> str | None:
    """The C++ compiler: $CXX, else g++, clang++ or c++; None where there is none."""
    wanted = os.environ.get("CXX")
    return shutil.which(wanted) if wanted else next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)


def fingerprint() -> str:
    """Of all that decides what the binary does: the sources, this file, and the kind of machine."""
    digest = hashlib.sha256(f"{platform.system()} {platform.machine()}".encode())
    sources = [path for room in ROOMS for path in sorted(room.iterdir())]
    for path in [*sources, Path(__file__)]:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def packaged_name() -> str:
    """The file name that is looked for beside this file; another source has another name."""
    return f"_operators-{fingerprint()}.so"


def compile_operators(output: Path) -> Path:
    """Compile all operators to `output` (atomically) and return it.

    Raises RuntimeError with the compiler's words if there is no compiler or it fails.
    """
    compiler = find_compiler()
    if compiler is None:
        raise RuntimeError("no C++ compiler found (g++, clang++ or c++, or the one that CXX names)")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        objects = [_compile(compiler, *unit, f"{folder}/{index}.o") for index, unit in enumerate(_units())]
        libraries = [f"-L{Path(torch.__file__).parent / 'lib'}", "-ltorch_cpu", "-ltorch"]
        _run([compiler, "-shared", *objects, *libraries, "-o", f"{folder}/operators.so"])
        os.replace(f"{folder}/operators.so", output)
    return output


def _units() -> list[tuple[Path, list[str]]]:
    """What is compiled with which flags; the kernels once for each instruction set, operator.cpp chooses."""
    rasterizer, reconstruction, generation, refinement = ROOMS
    torch_root = Path(torch.__file__).parent
    headers = [f"-I{torch_root / 'include'}", f"-I{torch_root / 'include/torch/csrc/api/include'}"]
    stable = [f"-DTORCH_TARGET_VERSION={TORCH_TARGET}", *headers]
    x86 = platform.machine() in X86
    units = [
        # -ffp-contract=off: binning counts in one pass and writes in another, and both must round alike.
        (rasterizer / "operator.cpp", [*stable, "-ffp-contract=off", *(["-DLRM4D_HAS_AVX2"] if x86 else [])]),
        (rasterizer / "kernels.cpp", ["-DLRM4D_KERNELS=baseline_kernels"]),
        (reconstruction / "evidence.cpp", [*stable, *(["-DLRM4D_X86"] if x86 else [])]),
        (reconstruction / "evidence_kernel.cpp", ["-DLRM4D_EVIDENCE=baseline_evidence"]),
        # -ffp-contract=off: who is nearest must not depend on the compiler, and the reference must agree.
        (generation / "splatting.cpp", [*stable, "-ffp-contract=off"]),
        (refinement / "carrying.cpp", stable),
    ]
    if x86:
        avx2 = ["-mavx2", "-mfma"]
        avx512 = [*avx2, "-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw"]
        units.append((rasterizer / "kernels.cpp", [*avx2, "-DLRM4D_KERNELS=avx2_kernels"]))
        units.append((reconstruction / "evidence_kernel.cpp", [*avx2, "-DLRM4D_EVIDENCE=avx2_evidence"]))
        units.append((reconstruction / "evidence_kernel.cpp", [*avx512, "-DLRM4D_EVIDENCE=avx512_evidence"]))
    return units


def _compile(compiler: str, source: Path, flags: list[str], output: str) -> str:
    _run([compiler, *FLAGS, *flags, "-c", str(source), "-o", output])
    return output


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")


def cache_folder() -> Path:
    """Where operators that were compiled at first use are kept: $LRM4D_CACHE, else lrm4d in the user's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lrm4d"
    return Path(os.environ.get("LRM4D_CACHE") or default)


def find_operators() -> Path:
    """The library, compiled if need be. Raises RuntimeError or OSError where it cannot be had."""
    packaged = PACKAGE / packaged_name()
    if packaged.exists():
        return packaged
    cached = cache_folder() / f"operators-{fingerprint()}-torch{torch.__version__}-{platform.machine()}.so"
    return cached if cached.exists() else compile_operators(cached)


@functools.cache
def load_operators() -> bool:
    """Whether torch.ops.lrm4d is there. The first call loads it, and warns once with the remedy where it cannot."""
    try:
        torch.ops.load_library(str(find_operators()))
    except (RuntimeError, OSError) as error:
        warnings.warn(
            f"lrm4d: no fast CPU operators, plain PyTorch stands in (the rasterizer about 100 times slower): {error}\n"
            "Remedy: install a C++20 compiler (Debian, Ubuntu: apt install g++) and PyTorch 2.10 or later.",
            stacklevel=2,
        )
        return False
    return True
