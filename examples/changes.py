"""Draws every photometric change of the training on one photo.

python examples/changes.py PHOTO -o changes.jpg
"""

import argparse
from dataclasses import fields

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from tiepoint.draw import PAPER, write_picture
from tiepoint.images import read_image, resize_to_long_side
from tiepoint.ops import photometric
from tiepoint.ops.photometric import PhotometricChanges, mix_channels

COLUMNS, WIDTH, CAPTION = 5, 320, 28


def main() -> None:
    """Read, change, tile, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo")
    parser.add_argument("-o", "--output", default="changes.jpg")
    parser.add_argument("--seed", type=int, default=4)
    args = parser.parse_args()
    pixels, _ = resize_to_long_side(read_image(args.photo), WIDTH)
    grey = mix_channels(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255, 0.0)
    tiles = [tile("as it was", grey)]
    for field in fields(PhotometricChanges):
        generator = torch.Generator().manual_seed(args.seed)
        changed = getattr(photometric, field.name)(grey, 1.0, generator=generator)
        tiles.append(tile(f"{field.name} {field.default:.0%}", changed))
    tiles.append(tile("all of them", photometric.photometric_change(grey, 1.0, generator=generator)))
    tiles += [np.full_like(tiles[0], PAPER)] * (-len(tiles) % COLUMNS)
    rows = [np.concatenate(tiles[start : start + COLUMNS], axis=1) for start in range(0, len(tiles), COLUMNS)]
    write_picture(args.output, np.concatenate(rows))


def tile(title: str, image: torch.Tensor) -> np.ndarray:
    """An image (1, 1, H, W) under its title, (H + CAPTION, W, 3) uint8."""
    pixels = (image[0, 0].clamp(0, 1) * 255).round().byte().numpy()
    picture = Image.new("RGB", (pixels.shape[1], pixels.shape[0] + CAPTION), PAPER)
    picture.paste(Image.fromarray(pixels).convert("RGB"), (0, CAPTION))
    font = ImageFont.load_default(size=18)
    ImageDraw.Draw(picture).text((8, CAPTION / 2), title, fill="white", font=font, anchor="lm")
    return np.asarray(picture)


if __name__ == "__main__":
    main()
