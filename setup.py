"""Packaging of lrm4d: what it needs, what comes with it, and its C++ operators, compiled where that is possible."""

import importlib.util
import re
from pathlib import Path

from setuptools import Distribution, find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "lrm4d/__init__.py").read_text(encoding="utf-8")).group(1)
README = ROOT / "README.md"

CORE = [
    "av>=14",
    "huggingface_hub>=0.30",
    "jaxtyping>=0.3",
    "numpy>=1.26",
    "omegaconf>=2.3",
    "pyyaml>=6",
    "pillow>=10.1",
    "rich>=13",
    "safetensors>=0.5",
    "torch>=2.10",
    "typer>=0.16",
]

EXTRAS = {
    "cuda": ["deepspeed>=0.19", "gsplat>=1.5", "xformers>=0.0.30"],
    "train": ["deepspeed>=0.19", "webdataset>=0.2.100"],
    "generate": ["accelerate>=1", "diffusers>=0.36", "ftfy>=6", "OpenEXR>=3.2", "peft>=0.17", "transformers>=4.56"],
    "view": ["viser>=1.1"],
    "eval": ["lpips>=0.1.4", "matplotlib>=3.9", "opencv-python-headless>=4.10", "torchmetrics>=1.6"],
    "log": ["tensorboard>=2.18", "wandb>=0.19"],
    "test": [
        "beartype>=0.20",
        "deepspeed>=0.19",
        "gsplat>=1.5",
        "hypothesis>=6.100",
        "matplotlib>=3.9",
        "opencv-python-headless>=4.10",
        "pytest>=8",
        "scikit-image>=0.24",
        "tensorboard>=2.18",
        "torchmetrics>=1.6",
        "triton>=3.5; platform_system == 'Linux' and platform_machine == 'x86_64'",
        "viser>=1.1",
        "webdataset>=0.2.100",
    ],
    "dev": ["mypy>=1.15", "ruff>=0.12"],
}
EXTRAS["test"] += EXTRAS["generate"]
EXTRAS["dev"] += EXTRAS["test"]
PACKAGE_DATA = {
    "lrm4d": [
        "*/csrc/*",
        "*.so",
        "pretrained/*/*",
        "pretrained/*/*/*",
        "generation/presets/*.yaml",
        "export/viewer/*",
        "scenes/demo/*",
        "scenes/demo/images/*",
    ],
    "train": ["configs/*.yaml"],
}


def build_operators(target: Path) -> None:
    """Compile the C++ operators into the package folder `target`; without torch or a compiler, say so and go on.

    They are then compiled when they are first used, which needs a compiler on that machine.
    """
    try:
        operators = _load_builder()
        current = operators.compile_operators(target / operators.packaged_name())
        for stale in set(target.glob("_operators-*.so")) - {current}:
            stale.unlink()
    except (ImportError, RuntimeError, OSError) as error:
        print(f"lrm4d: the C++ operators are not compiled now ({error}); they will be at first use.")


def _load_builder():
    """The builder's file alone: importing the package would need everything that it depends on."""
    spec = importlib.util.spec_from_file_location("lrm4d_operators", ROOT / "lrm4d/operators.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BuildWithOperators(build_py):
    """The usual build, and then the operators beside their sources (editable) or in the wheel."""

    def run(self) -> None:
        """Build everything."""
        super().run()
        build_operators(ROOT / "lrm4d" if self.editable_mode else Path(self.build_lib) / "lrm4d")


class PlatformDistribution(Distribution):
    """A wheel that holds compiled operators is for one kind of machine."""

    def has_ext_modules(self) -> bool:
        """Whether the wheel is for this kind of machine alone."""
        return importlib.util.find_spec("torch") is not None


setup(
    name="lrm4d",
    version=VERSION,
    description="A few posed pictures of something that moves become a 4D scene in one pass of a network",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["lrm4d*", "train*", "eval*", "data_tools*"]),
    package_data=PACKAGE_DATA,
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["lrm4d=lrm4d.cli:main"]},
    cmdclass={"build_py": BuildWithOperators},
    distclass=PlatformDistribution,
    classifiers=[
        "Programming Language :: Python :: 3",
        "Operating System :: POSIX :: Linux",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
)
