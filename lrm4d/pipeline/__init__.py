"""Whole jobs, folders in and folders out; the only place where generation meets reconstruction.

reconstruct.py: posed pictures to a 4D scene with all its files. generate.py: a video to views of other cameras.
video_to_4d.py: a video to a 4D scene, by both; stages.py lets it go on where it was stopped.
"""

from lrm4d.pipeline.reconstruct import (
    VIDEO_FRAMES,
    Choice,
    Reconstructor,
    Report,
    choose_frames,
    load_inputs,
    read_inputs,
    reconstruct_scene,
)

__all__ = [
    "VIDEO_FRAMES",
    "Choice",
    "Reconstructor",
    "Report",
    "choose_frames",
    "load_inputs",
    "read_inputs",
    "reconstruct_scene",
]
