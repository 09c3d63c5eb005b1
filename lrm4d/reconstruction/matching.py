"""Small learned matchings along each pixel's ray, from the other views' evidence: a first look and later ones."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from lrm4d.reconstruction.evidence import EVIDENCE_CHANNELS

START_GAIN = 3.0
"""Of the evidence on the matching logits; of 0 to 20 about the best on untrained networks."""
MATCHER_WIDTH = 128
PEAK_REACH = 3
"""Steps to either side of the likeliest distance that have a say in where exactly it is."""


def find_peaks(logits: Float[Tensor, "*batch step"]) -> Float[Tensor, "*batch"]:
    """Where along the ray (0 to 1) the likeliest distance is: the expectation around the largest logit.

    Around it only, because the expectation over two surfaces lies on neither.
    """
    steps = logits.shape[-1]
    places = torch.arange(steps, device=logits.device)
    near = (places - logits.argmax(dim=-1, keepdim=True)).abs() <= PEAK_REACH
    weights = torch.softmax(logits.masked_fill(~near, float("-inf")), dim=-1)
    return weights @ ((places + 0.5) / steps)


class Matching(NamedTuple):
    """Logits over the distances along the rays of where they enter and, with exits, where they leave; features for the
    tokenizer; and what both were computed from."""

    logits: Float[Tensor, "pixel surface step"]
    features: Float[Tensor, "pixel feature"]
    hidden: Float[Tensor, "pixel hidden"]


class RayMatcher(nn.Module):
    """Reads the evidence along a ray: logits over its distances, and features for the tokenizer."""

    def __init__(self, steps: int, features: int, surfaces: int, hidden: int = MATCHER_WIDTH):
        super().__init__()
        self.surfaces = surfaces
        self.read = nn.Linear(steps * EVIDENCE_CHANNELS, hidden)
        self.mix = nn.Linear(hidden, hidden)
        self.to_logits = nn.Linear(hidden, surfaces * steps)
        self.to_features = nn.Linear(hidden, features)
        # Entries start as a plain plane sweep: that distance wins where most views are covered and agree.
        self.gains = nn.Parameter(torch.tensor([1.0, 1.0, 0.0]).repeat(EVIDENCE_CHANNELS // 3))
        with torch.no_grad():
            self.to_logits.weight.mul_(0.1)

    def forward(self, evidence: Float[Tensor, "pixel step channel"]) -> Matching:
        """Match along each ray."""
        hidden = gelu(self.read(evidence.flatten(1)))
        hidden = hidden + gelu(self.mix(hidden))
        sweep = START_GAIN * (evidence @ self.gains)
        entries, *exits = self.to_logits(hidden).unflatten(-1, (self.surfaces, -1)).unbind(1)
        return Matching(torch.stack([entries + sweep, *exits], dim=1), self.to_features(hidden), hidden)


class LaterLook(nn.Module):
    """Corrects each Gaussian by the evidence around its place, asked of each view where it will have moved to by then.

    What the token says of 64 pixels is coarse; this is each pixel's own: a shift along its ray and changes of opacity,
    size and duration, so that what no other view can confirm becomes transparent. All start near zero, so that a look
    can be added to a trained network.
    """

    def __init__(self, steps: int, known: int, changes: int, hidden: int = 96):
        super().__init__()
        self.steps = steps
        self.read = nn.Linear(steps * EVIDENCE_CHANNELS + known, hidden)
        self.mix = nn.Linear(hidden, hidden)
        self.to_logits = nn.Linear(hidden, steps)
        self.to_changes = nn.Linear(hidden, changes)
        for layer in (self.to_logits, self.to_changes):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(
        self, evidence: Float[Tensor, "pixel step channel"], known: Float[Tensor, "pixel known"]
    ) -> tuple[Float[Tensor, "pixel step"], Float[Tensor, "pixel change"]]:
        """Logits over the places that were looked at, and what `change_raw` adds."""
        hidden = gelu(self.read(torch.cat([evidence.flatten(1), known], dim=-1)))
        hidden = hidden + gelu(self.mix(hidden))
        return self.to_logits(hidden), self.to_changes(hidden)
