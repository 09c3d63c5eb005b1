"""Scene folders: what a user has on disk, read, checked and written. Camera conventions are converted here only."""

from lrm4d.scenes.protocols import PAPER_PROTOCOLS as PAPER_PROTOCOLS
from lrm4d.scenes.scene import Frame as Frame
from lrm4d.scenes.scene import Scene as Scene
from lrm4d.scenes.scene import render_path as render_path
from lrm4d.scenes.transforms import load_scene as load_scene
from lrm4d.scenes.transforms import save_scene as save_scene
from lrm4d.scenes.validation import SceneError as SceneError
