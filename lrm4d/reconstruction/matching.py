"""A small learned matching along each pixel's ray, from the evidence of the other views."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from lrm4d.reconstruction.evidence import EVIDENCE_CHANNELS

START_GAIN = 3.0
"""Of the evidence on the matching logits; of 0 to 20 about the best on untrained networks."""


class RayMatcher(nn.Module):
    """Reads the evidence along a ray: logits over its distances, and features for the tokenizer."""

    def __init__(self, steps: int, features: int, hidden: int = 128):
        super().__init__()
        self.read = nn.Linear(steps * EVIDENCE_CHANNELS, hidden)
        self.mix = nn.Linear(hidden, hidden)
        self.to_logits = nn.Linear(hidden, steps)
        self.to_features = nn.Linear(hidden, features)
        # The matching starts as a plain plane sweep: that distance wins where most views are covered and agree.
        self.gains = nn.Parameter(torch.tensor([1.0, 1.0, 0.0]).repeat(EVIDENCE_CHANNELS // 3))
        with torch.no_grad():
            self.to_logits.weight.mul_(0.1)

    def forward(
        self, evidence: Float[Tensor, "pixel step channel"]
    ) -> tuple[Float[Tensor, "pixel step"], Float[Tensor, "pixel feature"]]:
        """Logits over the distances, and features."""
        hidden = gelu(self.read(evidence.flatten(1)))
        hidden = hidden + gelu(self.mix(hidden))
        return self.to_logits(hidden) + START_GAIN * (evidence @ self.gains), self.to_features(hidden)
