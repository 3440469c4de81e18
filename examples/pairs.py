"""Writes the pairs of docs/register.md and docs/pose.md: a photograph and a tilted, shaded copy; a stereo pair.

python examples/pairs.py -o pairs
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import skimage
from PIL import Image

TILT = np.array([[0.86, -0.16, 95.0], [0.12, 0.84, 10.0], [2e-4, 1.5e-4, 1.0]])
FOCAL = 994.978  # px: Middlebury's Motorcycle at the size that scikit-image has; the two axes lie 31 px apart


def main() -> None:
    """Write the images and cameras.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("pairs"))
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    photo = skimage.data.coffee()
    tilted = cv2.warpPerspective(photo, TILT, (600, 400), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    shade = np.linspace(0.5, 1.0, 600)[None, :, None]
    left, right, _ = skimage.data.stereo_motorcycle()
    shaded = (tilted * shade + 20).clip(0, 255).astype(np.uint8)
    for name, pixels in (("coffee", photo), ("tilted", shaded), ("left", left), ("right", right)):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    cameras = {
        "K0": [[FOCAL, 0, 311.193], [0, FOCAL, 254.877], [0, 0, 1]],
        "K1": [[FOCAL, 0, 342.279], [0, FOCAL, 254.877], [0, 0, 1]],
    }
    (folder / "cameras.json").write_text(json.dumps(cameras))


if __name__ == "__main__":
    main()
