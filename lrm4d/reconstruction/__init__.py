"""The feed-forward network: Views -> Gaussians4D."""

from lrm4d.reconstruction.config import CONFIGS, ModelConfig
from lrm4d.reconstruction.model import Reconstruction, ReconstructionModel

__all__ = ["CONFIGS", "ModelConfig", "Reconstruction", "ReconstructionModel"]
