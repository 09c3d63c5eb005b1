"""Contact sheets: labelled rows of small pictures, to look at what a reconstruction did."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

GAP, TEXT_SIZE, SMALLEST_CELL = 4, 13, 96
"""Pixels between cells, of the text, and of the shorter side under which pictures are enlarged."""


def contact_sheet(
    rows: Mapping[str, Float[Tensor, "column 3 height width"]],
    column_labels: Sequence[str] = (),
    title: str = "",
) -> Float[Tensor, "3 sheet_height sheet_width"]:
    """A picture of labelled rows of pictures in [0, 1], all of one size; a row may have fewer columns than another."""
    if not rows:
        raise ValueError("contact_sheet: no rows were given; expected at least one labelled row of pictures.")
    height, width = next(iter(rows.values())).shape[-2:]
    zoom = -(-SMALLEST_CELL // min(height, width))
    height, width = height * zoom, width * zoom
    font = ImageFont.load_default(TEXT_SIZE)
    margin = int(max(font.getlength(label) for label in rows)) + 2 * GAP
    line = TEXT_SIZE + 2 * GAP
    top = line * (bool(title) + bool(column_labels))
    columns = max(len(pictures) for pictures in rows.values())
    sheet = Image.new("RGB", (margin + columns * (width + GAP), top + len(rows) * (height + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), title, fill="black", font=font)
    for column, label in enumerate(column_labels[:columns]):
        draw.text((margin + column * (width + GAP), top - line + GAP), label, fill="black", font=font)
    for row, (label, pictures) in enumerate(rows.items()):
        y = top + row * (height + GAP)
        draw.text((GAP, y + height // 2 - TEXT_SIZE // 2), label, fill="black", font=font)
        for column, picture in enumerate(pictures):
            cell = _to_pil(picture).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(cell, (margin + column * (width + GAP), y))
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1).float() / 255


def reconstruction_sheet(
    inputs: Float[Tensor, "input 3 height width"],
    prediction: Float[Tensor, "target 3 height width"],
    truth: Float[Tensor, "target 3 height width"],
    target_labels: Sequence[str] = (),
    title: str = "",
    most_columns: int = 8,
) -> Float[Tensor, "3 sheet_height sheet_width"]:
    """Rows input, prediction, truth and error; columns chosen evenly among the targets, and among the inputs.

    target_labels stand over the columns of the targets; the inputs have nothing to do with what is below them.
    """
    chosen, given = spread(len(prediction), most_columns), spread(len(inputs), most_columns)
    rows = {
        f"input {len(given)}/{len(inputs)}": inputs[given],
        "prediction": prediction[chosen],
        "truth": truth[chosen],
        "error": error_pictures(prediction[chosen], truth[chosen]),
    }
    return contact_sheet(rows, [target_labels[i] for i in chosen] if target_labels else [], title)


def grid_sheet(
    images: Float[Tensor, "time view 3 height width"],
    known: Bool[Tensor, "time view 1 height width"],
    title: str = "",
    most_columns: int = 8,
) -> Float[Tensor, "3 sheet_height sheet_width"]:
    """A row for the video, view 0, and two for each other view: what the video shows of it, with grey holes, and the
    whole pictures; columns are moments, chosen evenly."""
    moments = spread(len(images), most_columns)
    images, known = images[moments], known[moments]
    rows = {"video": images[:, 0]}
    for view in range(1, images.shape[1]):
        rows[f"{view}: seen"] = torch.where(known[:, view], images[:, view], 0.5)
        rows[f"{view}: made"] = images[:, view]
    return contact_sheet(rows, title=title)


def error_pictures(
    prediction: Float[Tensor, "*batch 3 height width"], truth: Float[Tensor, "*batch 3 height width"]
) -> Float[Tensor, "*batch 3 height width"]:
    """Mean absolute error over the channels as colour: white 0, yellow 0.17, red 0.33, black 0.5 and more."""
    level = (prediction - truth).abs().mean(dim=-3, keepdim=True) * 6
    return torch.cat([3 - level, 2 - level, 1 - level], dim=-3).clamp(0, 1)


def spread(count: int, most: int) -> list[int]:
    """At most `most` indices below count, evenly spread, first and last among them."""
    wanted = min(count, most)
    return [round(i * (count - 1) / max(1, wanted - 1)) for i in range(wanted)]


def _to_pil(picture: Float[Tensor, "3 height width"]) -> Image.Image:
    return Image.fromarray((picture.detach().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())
