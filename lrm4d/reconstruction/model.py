"""The network: views in, 4D Gaussians out, in one pass."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lrm4d.gaussians4d import Gaussians4D
from lrm4d.reconstruction.config import ModelConfig
from lrm4d.reconstruction.evidence import EVIDENCE_CHANNELS, gather_evidence, sample_distances
from lrm4d.reconstruction.gaussian_head import (
    EXIT_CHANNELS,
    GAUSSIAN_CHANNELS,
    activate,
    activate_exits,
    activate_from_pixels,
    change_raw,
    place_on_rays,
)
from lrm4d.reconstruction.matching import MATCHER_WIDTH, LaterLook, Matching, RayMatcher, find_peaks
from lrm4d.reconstruction.tokenizer import PIXEL_CHANNELS, Patches, cut_patches
from lrm4d.reconstruction.transformer import Transformer
from lrm4d.views import Views


@dataclass(frozen=True)
class Reconstruction:
    """4D Gaussians with what training asks about them.

    gaussians: batch shape [scene], padded with opacity 0 to the scene with the most.
    patches: what the network read. tokens, pixels: for every pixel that makes Gaussians, its patch and its place
    in the patch. A pixel has one Gaussian where its ray enters the object and, with `exits`, one where it leaves:
    slots: its scene and its place among the scene's Gaussians. distances: along its ray. distance_logits: over the
    evidence's steps along its ray (no columns without evidence).
    """

    gaussians: Gaussians4D
    patches: Patches
    tokens: Int[Tensor, "pixel"]
    pixels: Int[Tensor, "pixel"]
    slots: tuple[Int[Tensor, "pixel surface"], Int[Tensor, "pixel surface"]]
    distances: Float[Tensor, "pixel surface"]
    distance_logits: Float[Tensor, "pixel surface step"]


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
        self.channels = GAUSSIAN_CHANNELS + (EXIT_CHANNELS if config.exits else 0)
        self.matcher = RayMatcher(steps, config.evidence_features, config.surfaces) if steps else None
        known, changes = MATCHER_WIDTH + self.channels, 2 + config.surfaces
        self.second_look = LaterLook(config.second_look, known, changes) if config.second_look else None
        self.third_look = LaterLook(config.second_look, known, changes) if config.third_look_step else None
        self.embed = nn.Linear(area * channels, config.width, bias=False)
        self.transformer = Transformer(
            config.width, config.layers, config.head_width, config.mlp_ratio, config.qk_norm
        )
        self.head = nn.Linear(config.width, area * self.channels, bias=False)
        self.distance_head = nn.Linear(config.width, config.surfaces * steps, bias=False) if steps else None
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
        matching = self._match(views, patches, tokens, pixels) if self.matcher is not None else None
        with self._autocast(views):
            mixed, free = self._mix(self._embed(patches, tokens, pixels, matching), patches.lengths)
            raw = self.head(mixed)
            # The transformer weighs the peaks that the matching found along the rays, the same for a whole patch.
            logits = None if matching is None else matching.logits + self._weigh_distances(mixed)[tokens]
        raw = raw.unflatten(-1, (-1, self.channels))[tokens, pixels].float()
        logits = raw.new_zeros(len(raw), config.surfaces, 0) if logits is None else logits.float()
        distances = self._place(patches, tokens, pixels, raw, logits)
        for look, step in self._later_looks():
            distances, raw = self._look_again(look, step, views, patches, tokens, pixels, raw, distances, matching)
        parameters = self._to_gaussians(patches, tokens, pixels, raw, distances)
        gaussians, slots = self._collect(patches, tokens, parameters, free)
        return Reconstruction(gaussians, patches, tokens, pixels, slots, distances, logits)

    def _weigh_distances(self, mixed: Float[Tensor, "token width"]) -> Float[Tensor, "token surface step"]:
        return self.distance_head(mixed).unflatten(-1, (self.config.surfaces, -1))

    def _autocast(self, views: Views) -> torch.autocast:
        return torch.autocast(views.images.device.type, torch.bfloat16, enabled=self.bf16)

    def _gather_evidence(
        self, views: Views, patches: Patches, tokens: Tensor, pixels: Tensor, distances: Tensor, velocities: Tensor
    ) -> Float[Tensor, "gaussian step channel"]:
        dtype = torch.bfloat16 if self.bf16 else distances.dtype  # as the layers that read it take it
        evidence = distances.new_empty(*distances.shape, EVIDENCE_CHANNELS, dtype=dtype)
        owners = (patches.scenes * views.shape[1] + patches.views)[tokens]
        rays = patches.origins[tokens], patches.directions[tokens, pixels], distances
        colors, widths = patches.colors[tokens, pixels], self.config.evidence_widths
        return gather_evidence(views, owners, *rays, colors, velocities, evidence, widths)

    def _match(self, views: Views, patches: Patches, tokens: Tensor, pixels: Tensor) -> Matching:
        distances = sample_distances(patches.spans[tokens, pixels], self.config.evidence_distances)
        at_rest = torch.zeros_like(patches.origins[tokens])
        evidence = self._gather_evidence(views, patches, tokens, pixels, distances, at_rest)
        with self._autocast(views):
            return self.matcher(evidence)

    def _later_looks(self) -> list[tuple[LaterLook, float]]:
        """The looks after the first, each with the distance between its places."""
        looks = (self.second_look, self.config.second_look_step), (self.third_look, self.config.third_look_step)
        return [(look, step) for look, step in looks if look is not None]

    def _look_again(
        self,
        look: LaterLook,
        step: float,
        views: Views,
        patches: Patches,
        tokens: Tensor,
        pixels: Tensor,
        raw: Tensor,
        distances: Tensor,
        matching: Matching,
    ) -> tuple[Tensor, Tensor]:
        """Distances and raw parameters, corrected by another look around each Gaussian, with its motion."""
        offsets = step * (torch.arange(look.steps, device=raw.device) - look.steps // 2)
        with torch.no_grad():
            first = self._to_gaussians(patches, tokens, pixels, raw, distances)
            velocities = Gaussians4D(**{name: values[:, 0] for name, values in first.items()}).to_moving().velocities
        around = distances[:, :1].detach() + offsets
        evidence = self._gather_evidence(views, patches, tokens, pixels, around, velocities)
        with self._autocast(views):
            logits, changes = look(evidence, torch.cat([matching.hidden, raw.to(matching.hidden)], dim=-1))
        shifts = torch.softmax(logits.float(), dim=-1) @ offsets
        entries, exits = distances[:, :1], distances[:, 1:]
        return torch.cat([entries + shifts[:, None], exits], dim=1), change_raw(raw, changes.float())

    @staticmethod
    def _by_scene(patches: Patches, tokens: Tensor) -> list[slice]:
        """Where each scene's Gaussians lie; they come scene after scene."""
        counts = torch.bincount(patches.scenes[tokens], minlength=len(patches.lengths)).tolist()
        ends = torch.tensor([0, *counts]).cumsum(0).tolist()
        return [slice(start, end) for start, end in pairwise(ends)]

    def _embed(
        self, patches: Patches, tokens: Tensor, pixels: Tensor, matching: Matching | None
    ) -> Float[Tensor, "token width"]:
        channels = [patches.channels()]
        if self.config.residual_start:
            channels.append(patches.alphas[..., None])
        if matching is not None:
            features = matching.features.new_zeros(*patches.alphas.shape, matching.features.shape[-1])
            channels.append(features.index_put((tokens, pixels), matching.features))
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

    def _place(
        self, patches: Patches, tokens: Tensor, pixels: Tensor, raw: Tensor, logits: Tensor
    ) -> Float[Tensor, "pixel surface"]:
        """Distances along the rays."""
        near, far = self.config.near, self.config.far
        if near is None:
            near, far = patches.spans[tokens, pixels].split(1, dim=-1)
        shifts = raw[:, :3].mean(dim=-1, keepdim=True)
        if self.config.exits:
            shifts = torch.cat([shifts, raw[:, GAUSSIAN_CHANNELS : GAUSSIAN_CHANNELS + 1]], dim=-1)
        return place_on_rays(shifts, near, far, find_peaks(logits) if logits.shape[-1] else None)

    def _to_gaussians(
        self, patches: Patches, tokens: Tensor, pixels: Tensor, raw: Tensor, distances: Tensor
    ) -> dict[str, Tensor]:
        """The parameters [pixel, surface, ...] of the Gaussians of pixels, by name."""
        own, of_exit = raw.split((GAUSSIAN_CHANNELS, self.channels - GAUSSIAN_CHANNELS), dim=-1)
        if self.config.residual_start:
            colors, alphas = patches.colors[tokens, pixels], patches.alphas[tokens, pixels]
            footprints = patches.footprints[tokens] * distances[:, 0].detach()
            starts = self.config.start_scale, self.config.start_duration
            front = activate_from_pixels(own, patches.times[tokens], colors, alphas, footprints, *starts)
            surfaces = [front, activate_exits(of_exit, front, colors, alphas)] if self.config.exits else [front]
        else:
            surfaces = [activate(own)]
        parameters = {name: torch.stack([surface[name] for surface in surfaces], dim=1) for name in surfaces[0]}
        if not self.config.free_times:
            parameters["time_means"] = patches.times[tokens, None].expand_as(parameters["time_means"])
        rays = patches.directions[tokens, pixels]
        means = patches.origins[tokens][:, None] + distances[..., None] * rays[:, None]
        return {"means": means.clamp(-1, 1), **parameters}

    def _collect(
        self, patches: Patches, tokens: Tensor, parameters: dict[str, Tensor], free: Tensor | None
    ) -> tuple[Gaussians4D, tuple[Tensor, Tensor]]:
        """Pack the Gaussians scene by scene, padded with transparent ones, the free ones at the end."""
        surfaces = self.config.surfaces
        tokens = tokens.repeat_interleave(surfaces)
        members = self._by_scene(patches, tokens)
        most = max((run.stop - run.start for run in members), default=0)
        scenes = patches.scenes[tokens]
        starts = torch.tensor([run.start for run in members], device=tokens.device)
        slots = (scenes, torch.arange(len(tokens), device=tokens.device) - starts[scenes])
        slots_of_pixels = tuple(index.unflatten(0, (-1, surfaces)) for index in slots)
        free_parameters = None if free is None else {"means": free[..., :3].clamp(-1, 1), **activate(free)}
        packed = {}
        for name, values in parameters.items():
            padding = 0.0 if name in ("means", "time_means", "opacities", "colors") else 1.0
            full = values.new_full((len(members), most, *values.shape[2:]), padding)
            packed[name] = full.index_put(slots, values.flatten(0, 1))
            if free_parameters is not None:
                packed[name] = torch.cat([packed[name], free_parameters[name]], dim=1)
        return Gaussians4D(**packed, low_pass=self.config.low_pass, compensate=self.config.compensate), slots_of_pixels
