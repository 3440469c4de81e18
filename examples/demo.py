"""From a folder of photos to a matcher that works, in about three minutes: `make demo`.

Every picture comes with scikit-image: a real stereo pair (Middlebury's motorcycle, with its true disparity) to
match, and a dozen other photographs to train on.
"""

import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import skimage
from PIL import Image

import tiepoint
from tiepoint.cli import main as run_tiepoint

FOLDER = Path("demo")
PHOTOS = (
    *("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel"),
    *("hubble_deep_field", "immunohistochemistry", "moon", "retina", "rocket"),
)


def say(text: str = "") -> None:
    """One line for the person who watches."""
    print(text, flush=True)


def title(step: int, text: str) -> None:
    """The heading of a step."""
    say(f"\n[{step}/4] {text}")


def tiepoint_command(*args: str) -> None:
    """Show a command as the user would type it, and run it."""
    say(f"$ tiepoint {' '.join(args)}")
    code = run_tiepoint(args)
    if code:
        sys.exit(code)


def prepare() -> npt.NDArray[Any]:
    """Write the photographs to disk; return the true disparity of the pair."""
    shutil.rmtree(FOLDER / "run", ignore_errors=True)  # of the demo before this one
    (FOLDER / "photos").mkdir(parents=True, exist_ok=True)
    disparity: npt.NDArray[Any]
    left, right, disparity = skimage.data.stereo_motorcycle()
    Image.fromarray(left).save(FOLDER / "left.png")
    Image.fromarray(right).save(FOLDER / "right.png")
    for name in PHOTOS:
        photo = getattr(skimage.data, name)()
        Image.fromarray(photo).convert("RGB").save(FOLDER / "photos" / f"{name}.png")
    return disparity


def right_within(matches: tiepoint.Matches, disparity: npt.NDArray[Any], radius: float) -> tuple[int, int]:
    """How many matches lie within `radius` px of the truth, and how many have a truth.

    Middlebury's disparity d says that pixel (x, y) of the left image is (x - d, y) of the right one; it is 0 or
    not finite where it is not known.
    """
    x, y = np.rint(matches.keypoints0).astype(int).T
    d = disparity[y, x]
    known = np.isfinite(d) & (d > 0)
    truth = matches.keypoints0 - np.stack((d, np.zeros_like(d)), axis=1)
    error = np.linalg.norm(matches.keypoints1[known] - truth[known], axis=1)
    return int((error <= radius).sum()), int(known.sum())


def report(name: str, model: str | Path, disparity: npt.NDArray[Any]) -> None:
    """Match the pair and say how much of it is right."""
    matcher = tiepoint.load(model)
    start = time.perf_counter()
    matches = matcher(FOLDER / "left.png", FOLDER / "right.png")
    seconds = time.perf_counter() - start
    (one, known), (three, _) = (right_within(matches, disparity, radius) for radius in (1.0, 3.0))
    if not known:
        say(f"  {name}: no match at a place whose truth is known")
        return
    say(
        f"  {name}: {len(matches)} matches in {seconds:.2f} s; of {known} with known truth "
        f"{one} ({one / known:.0%}) lie within 1 px and {three} ({three / known:.0%}) within 3 px of it"
    )


def untrained(path: Path) -> Path:
    """A network with random weights, to compare with."""
    import torch

    from tiepoint.checkpoints import Weights, write_pt
    from tiepoint.models.pyramid import PyramidExtractor

    torch.manual_seed(0)
    write_pt(path, Weights(PyramidExtractor().eval(), {}))
    return path


def main() -> None:
    """Run the four steps."""
    logging.getLogger("imageio").setLevel(logging.ERROR)
    start = time.perf_counter()
    say("tiepoint: tie points of two photographs, by a network trained on photographs alone")
    disparity = prepare()
    pair = str(FOLDER / "left.png"), str(FOLDER / "right.png")

    title(1, "Match a real pair with the embedded weights")
    tiepoint_command("match", *pair, "--geometry", "fundamental", "-o", str(FOLDER / "embedded.png"))
    report("embedded", "default", disparity)

    title(2, f"Train a small matcher on {len(PHOTOS)} other photographs, for about a minute")
    folder = FOLDER / "run"
    tiepoint_command(
        *("fit", "--config", "recipes/demo.yaml", "--data.folders", str(FOLDER / "photos")),
        *("--trainer.logger.save_dir", str(FOLDER), "--trainer.logger.version", "run"),
    )

    title(3, "Convert it to ONNX, with a proof that it answers the same")
    onnx = FOLDER / "mine.onnx"
    tiepoint_command("convert", str(folder / "last.ckpt"), str(onnx))

    title(4, "Match the same pair with it")
    tiepoint_command("match", *pair, "--model", str(onnx), "--geometry", "fundamental", "-o", str(FOLDER / "mine.png"))
    report("before (random weights)", untrained(FOLDER / "untrained.pt"), disparity)
    report("after a minute         ", onnx, disparity)
    report("embedded weights       ", "default", disparity)

    say(f"\nDone in {time.perf_counter() - start:.0f} s. Look at {FOLDER}/embedded.png and {FOLDER}/mine.png.")
    say("With images of your own:")
    say("  .venv/bin/tiepoint match LEFT.jpg RIGHT.jpg --geometry homography")
    say("  .venv/bin/tiepoint fit --config recipes/photos.yaml --data.folders YOUR_PHOTOS/")


if __name__ == "__main__":
    main()
