"""Compiles the CPU operator (csrc/) with the machine's C++ compiler against PyTorch's stable ABI.

Called by setup.py when a package is built, and by lrm4d.rasterizer.cpu at first use where it was not.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

SOURCES = Path(__file__).parent / "csrc"
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
    for path in sorted([*SOURCES.glob("*"), Path(__file__)]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def packaged_name() -> str:
    """The file name that lrm4d.rasterizer.cpu looks for beside itself; another source has another name."""
    return f"_operator-{fingerprint()}.so"


def compile_operator(output: Path) -> Path:
    """Compiles the operator to `output` (atomically) and returns it.

    Raises RuntimeError with the compiler's words if there is no compiler or it fails.
    """
    compiler = find_compiler()
    if compiler is None:
        raise RuntimeError("no C++ compiler found (g++, clang++ or c++, or the one that CXX names)")
    output.parent.mkdir(parents=True, exist_ok=True)
    x86 = platform.machine() in X86
    torch_root = Path(torch.__file__).parent
    includes = [f"-I{torch_root / 'include'}", f"-I{torch_root / 'include/torch/csrc/api/include'}"]
    shared = [*FLAGS, *(["-DLRM4D_HAS_AVX2"] if x86 else [])]
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        objects = [f"{folder}/operator.o", f"{folder}/baseline.o"]
        torch_api = ["-ffp-contract=off", f"-DTORCH_TARGET_VERSION={TORCH_TARGET}", *includes]  # binning counts twice
        steps = [
            [*shared, *torch_api, "-c", "operator.cpp", "-o", objects[0]],
            [*shared, "-DLRM4D_KERNELS=baseline_kernels", "-c", "kernels.cpp", "-o", objects[1]],
        ]
        if x86:
            objects.append(f"{folder}/avx2.o")
            steps.append(
                [*shared, "-mavx2", "-mfma", "-DLRM4D_KERNELS=avx2_kernels", "-c", "kernels.cpp", "-o", objects[2]]
            )
        libraries = [f"-L{torch_root / 'lib'}", "-ltorch_cpu", "-ltorch"]
        steps.append(["-shared", *objects, *libraries, "-o", f"{folder}/operator.so"])
        for step in steps:
            done = subprocess.run([compiler, *step], cwd=SOURCES, capture_output=True, text=True)
            if done.returncode != 0:
                raise RuntimeError(f"{compiler} {' '.join(step)} failed:\n{done.stderr.strip()}")
        os.replace(f"{folder}/operator.so", output)
    return output
