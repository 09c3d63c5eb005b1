"""The network: views in, 4D Gaussians out, in one pass."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lrm4d.gaussians4d import Gaussians4D
from lrm4d.reconstruction.config import ModelConfig
from lrm4d.reconstruction.evidence import gather_evidence, sample_distances
from lrm4d.reconstruction.gaussian_head import GAUSSIAN_CHANNELS, activate, activate_from_pixels, place_on_rays
from lrm4d.reconstruction.matching import RayMatcher
from lrm4d.reconstruction.tokenizer import PIXEL_CHANNELS, Patches, cut_patches
from lrm4d.reconstruction.transformer import Transformer
from lrm4d.views import Views


@dataclass(frozen=True)
class Reconstruction:
    """4D Gaussians with what training asks about them.

    gaussians: batch shape [scene], padded with opacity 0 to the scene with the most.
    patches: what the network read. tokens, pixels: for every Gaussian that came from a pixel, its patch and its place
    in the patch; slots: its scene and its place among the scene's Gaussians. distances: along its ray.
    distance_logits: over the evidence's steps along its ray (no columns without evidence).
    """

    gaussians: Gaussians4D
    patches: Patches
    tokens: Int[Tensor, "gaussian"]
    pixels: Int[Tensor, "gaussian"]
    slots: tuple[Int[Tensor, "gaussian"], Int[Tensor, "gaussian"]]
    distances: Float[Tensor, "gaussian"]
    distance_logits: Float[Tensor, "gaussian step"]


class ReconstructionModel(nn.Module):
    """4D-LRM (arXiv 2506.18890) with the switches of ModelConfig.

    bf16: run the layers, not the geometry, under autocast to bfloat16.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.bf16 = False
        area = config.patch**2
        steps = config.evidence_distances
        # With residual starts the network also sees alpha; with evidence, what the matching along the ray says.
        channels = PIXEL_CHANNELS + (1 if config.residual_start else 0) + (config.evidence_features if steps else 0)
        self.matcher = RayMatcher(steps, config.evidence_features) if steps else None
        self.embed = nn.Linear(area * channels, config.width, bias=False)
        self.transformer = Transformer(
            config.width, config.layers, config.head_width, config.mlp_ratio, config.qk_norm
        )
        self.head = nn.Linear(config.width, area * GAUSSIAN_CHANNELS, bias=False)
        # The transformer weighs the peaks that the matching found along the rays, the same for a whole patch.
        self.distance_head = nn.Linear(config.width, steps, bias=False) if steps else None
        if config.free_gaussians:
            self.free_tokens = nn.Parameter(torch.randn(config.free_gaussians, config.width))
            self.free_head = nn.Linear(config.width, GAUSSIAN_CHANNELS, bias=False)
        if config.residual_start:
            nn.init.normal_(self.head.weight, std=0.002)
        if self.distance_head is not None:
            nn.init.normal_(self.distance_head.weight, std=0.002)

    def forward(self, views: Views) -> Reconstruction:
        """Reconstruct every scene of views with batch shape [scene, view]; any number of views from 1."""
        config = self.config
        patches = cut_patches(views, config.patch, config.skip_empty)
        # With residual starts opacity is a factor of alpha: a pixel that shows nothing would make nothing.
        shown = patches.alphas > 1 / 255 if config.residual_start else torch.ones_like(patches.alphas)
        tokens, pixels = shown.nonzero(as_tuple=True)
        evidence = self._gather_evidence(views, patches, tokens, pixels)
        with torch.autocast(views.images.device.type, torch.bfloat16, enabled=self.bf16):
            match_logits, features = self._match(evidence, patches, tokens, pixels)
            mixed, free = self._mix(self._embed(patches, features), patches.lengths)
            raw = self.head(mixed)
            distance_logits = match_logits + self.distance_head(mixed)[tokens] if config.evidence_distances else None
        raw = raw.unflatten(-1, (-1, GAUSSIAN_CHANNELS))[tokens, pixels].float()
        distance_logits = raw.new_zeros(len(raw), 0) if distance_logits is None else distance_logits.float()
        distances, parameters = self._to_gaussians(patches, tokens, pixels, raw, distance_logits)
        gaussians, slots = self._collect(patches, tokens, parameters, free)
        return Reconstruction(gaussians, patches, tokens, pixels, slots, distances, distance_logits)

    def _gather_evidence(self, views: Views, patches: Patches, tokens: Tensor, pixels: Tensor) -> Tensor | None:
        steps = self.config.evidence_distances
        if not steps:
            return None
        evidence = []
        for scene, members in enumerate(self._by_scene(patches, tokens)):
            t, p = tokens[members], pixels[members]
            rays = patches.origins[t], patches.directions[t, p]
            distances = sample_distances(patches.spans[t, p], steps)
            evidence.append(gather_evidence(views[scene], patches.views[t], *rays, distances, patches.colors[t, p]))
        return torch.cat(evidence)

    def _match(
        self, evidence: Tensor | None, patches: Patches, tokens: Tensor, pixels: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Matching logits [gaussian, step] and features [token, pixel, feature]."""
        if evidence is None:
            return None, None
        match_logits, found = self.matcher(evidence)
        features = found.new_zeros(*patches.alphas.shape, found.shape[-1])
        return match_logits, features.index_put((tokens, pixels), found)

    @staticmethod
    def _by_scene(patches: Patches, tokens: Tensor) -> list[slice]:
        """Where each scene's Gaussians lie; they come scene after scene."""
        counts = torch.bincount(patches.scenes[tokens], minlength=len(patches.lengths)).tolist()
        ends = torch.tensor([0, *counts]).cumsum(0).tolist()
        return [slice(start, end) for start, end in pairwise(ends)]

    def _embed(self, patches: Patches, features: Tensor | None) -> Float[Tensor, "token width"]:
        channels = [patches.channels()]
        if self.config.residual_start:
            channels.append(patches.alphas[..., None])
        if features is not None:
            channels.append(features)
        return self.embed(torch.cat(channels, dim=-1).flatten(1))

    def _mix(self, embedded: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor | None]:
        """Run the transformer; the free tokens, if any, go at the end of each scene's run and come back apart."""
        count = self.config.free_gaussians
        if not count:
            return self.transformer(embedded, lengths), None
        runs = [torch.cat([run, self.free_tokens.to(run)]) for run in embedded.split(lengths)]
        mixed = self.transformer(torch.cat(runs), [length + count for length in lengths])
        runs = mixed.split([size for length in lengths for size in (length, count)])
        return torch.cat(runs[0::2]), self.free_head(torch.stack(runs[1::2])).float()

    def _to_gaussians(
        self, patches: Patches, tokens: Tensor, pixels: Tensor, raw: Tensor, logits: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Distances and the parameters of the Gaussians of pixels."""
        near, far = self.config.near, self.config.far
        if near is None:
            near, far = patches.spans[tokens, pixels].unbind(-1)
        start = None
        if self.config.evidence_distances:
            fractions = sample_distances(logits.new_tensor([0.0, 1.0]), logits.shape[-1])
            start = torch.softmax(logits, dim=-1) @ fractions
        distances = place_on_rays(raw, near, far, start)
        if self.config.residual_start:
            colors, alphas = patches.colors[tokens, pixels], patches.alphas[tokens, pixels]
            footprints = patches.footprints[tokens] * distances.detach()
            parameters = activate_from_pixels(raw, patches.times[tokens], colors, alphas, footprints)
        else:
            parameters = activate(raw)
        means = patches.origins[tokens] + distances[..., None] * patches.directions[tokens, pixels]
        return distances, {"means": means.clamp(-1, 1), **parameters}

    def _collect(
        self, patches: Patches, tokens: Tensor, parameters: dict[str, Tensor], free: Tensor | None
    ) -> tuple[Gaussians4D, tuple[Tensor, Tensor]]:
        """Pack the Gaussians scene by scene, padded with transparent ones, the free ones at the end."""
        members = self._by_scene(patches, tokens)
        most = max((run.stop - run.start for run in members), default=0)
        scenes = patches.scenes[tokens]
        starts = torch.tensor([run.start for run in members], device=tokens.device)
        slots = (scenes, torch.arange(len(tokens), device=tokens.device) - starts[scenes])
        free_parameters = None if free is None else {"means": free[..., :3].clamp(-1, 1), **activate(free)}
        packed = {}
        for name, values in parameters.items():
            padding = 0.0 if name in ("means", "time_means", "opacities", "colors") else 1.0
            full = values.new_full((len(members), most, *values.shape[1:]), padding)
            packed[name] = full.index_put(slots, values)
            if free_parameters is not None:
                packed[name] = torch.cat([packed[name], free_parameters[name]], dim=1)
        return Gaussians4D(**packed, low_pass=self.config.low_pass, compensate=self.config.compensate), slots
