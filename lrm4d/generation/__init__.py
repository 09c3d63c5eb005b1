"""From one video to synchronized views: geometry and warping, layouts of tokens, masked video diffusion, plans."""
