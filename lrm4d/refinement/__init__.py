"""From one pass to the best scene: per-scene optimization of Gaussians, with an inpainter as a teacher if wanted."""
