"""Score pictures that are already rendered: python -m eval.score_renders --scenes SCENE --renders OUT.

OUT is what `lrm4d reconstruct` wrote: OUT/renders/FILE_PATH for one scene, OUT/NAME/renders/FILE_PATH for each scene
of a folder of scenes. Every frame of the scene that has a render is scored; --protocol wants all of its targets.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from eval.protocols import find_scenes, load_views
from eval.report import SceneScores, summarize, to_markdown
from eval.scores import Scores, score_pictures
from lrm4d.checkpoint import write_text
from lrm4d.scenes import Scene, load_scene, render_path
from lrm4d.scenes.pictures import load_pictures


def rendered_frames(scene: Scene, renders: Path, protocol: str | None = None) -> tuple[str, ...]:
    """The file_paths that have a render; with a protocol, its targets, of which none may be missing."""
    wanted = scene.protocol(protocol)[1] if protocol else scene.file_paths
    there = tuple(path for path in wanted if render_path(renders, path).is_file())
    missing = sorted(set(wanted) - set(there))
    if not there or (protocol and missing):
        raise ValueError(
            f"{renders}: {len(missing)} of {len(wanted)} renders are missing, the first of them {missing[0]}; "
            "render them with `lrm4d reconstruct`, or name the protocol that was rendered."
        )
    return there


def score_renders(scene: Scene, renders: Path, protocol: str | None = None) -> Scores:
    """Scores of the renders in a folder; a render with alpha is put on white first."""
    paths = rendered_frames(scene, renders, protocol)
    truth = load_views(scene, paths)
    pictures, alphas = load_pictures([render_path(renders, path) for path in paths]).split([3, 1], dim=1)
    if pictures.shape != truth.images.shape:
        size, expected = ([shape[3], shape[2]] for shape in (pictures.shape, truth.images.shape))
        raise ValueError(
            f"{renders}: renders of {size} pixels, the scene's pictures are {expected}; render that size."
        )
    return score_pictures(pictures * alphas + 1 - alphas, truth)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if all went well, 2 with a message if the input is wrong."""
    parser = argparse.ArgumentParser(prog="python -m eval.score_renders", description=__doc__.split("\n")[0])
    parser.add_argument("--scenes", required=True, help="a scene folder, or a folder of them")
    parser.add_argument("--renders", required=True, type=Path, help="the folder that holds renders/, or NAME/renders/")
    parser.add_argument("--protocol", help="score this protocol's targets, and miss none")
    parser.add_argument("-o", "--output", type=Path, help="also write the scores to this .json file")
    options = parser.parse_args(arguments)
    scenes: dict[str, SceneScores] = {}
    try:
        for folder in find_scenes(options.scenes):
            own = options.renders / folder.name / "renders"
            scene = load_scene(folder)
            scores = score_renders(scene, own if own.is_dir() else options.renders / "renders", options.protocol)
            scenes[scene.name] = {options.protocol or "renders": {"renders": scores}}
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.output:
        write_text(options.output, json.dumps({"mean": summarize(scenes), "scenes": scenes}, indent=1) + "\n")
    print(to_markdown(scenes, {"renders": options.renders}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
