"""What a pair costs: matchers side by side on one pair of photos, a cold `tiepoint match`, and the size of the weights.

python benchmarks/speed.py --photos LEFT RIGHT --peers ../shared/peers --json speed.json

Image arrays in to matches out; every method once in each round, so that what else the machine does falls on all of
them; medians over the rounds, without the first ones. Peers whose weights are neither in --peers nor in an installed
package are left out; nothing is downloaded. Where there are more cores than --threads, set OPENBLAS_NUM_THREADS too:
NumPy, which matches SIFT's descriptors, asks for it before this program can tell.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

import tiepoint
from tiepoint import logs
from tiepoint.errors import InputError, WorkError
from tiepoint.evaluation.environment import environment, pin_torch, pinned_threads, thread_variables
from tiepoint.files import atomic_path, check_writable
from tiepoint.images import UInt8, read_image
from tiepoint.runtime import Matcher, embedded_models
from tiepoint.runtime.peers import PEERS, WEIGHTS

METHODS = ("default", "sift", "orb", "xfeat", "xfeat+lighterglue", "aliked-n16")
REFERENCE = "xfeat"
SIZE = (480, 640)  # height, width
WARM_UP = 2
REST = 0.1  # seconds before each measurement: until then threads of the method before may still spin
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")
# what users ask of a cold run, by what it writes
COMMANDS = {
    "npz, json and png": ("-o", "matches"),
    "npz": ("-o", "matches.npz"),
    "png, with a homography": ("-o", "matches.png", "--geometry", "homography"),
}


@dataclass(frozen=True)
class Row:
    """One method's times on the pair."""

    method: str
    backend: str
    matches: int
    milliseconds: float
    """The median."""
    rounds: list[float]
    """All of them, in milliseconds."""


def photos(given: Sequence[Path]) -> tuple[UInt8, UInt8]:
    """Two photos, or the first two of a folder, or the stereo pair in scikit-image; cut to 4:3, at 640×480."""
    if len(given) > 2:
        raise InputError(f"--photos: {len(given)} are given, expected a folder or two images")
    if not given:
        try:
            from skimage import data
        except ImportError as error:
            raise InputError("without --photos the pair of scikit-image is needed: pip install scikit-image") from error
        pair = data.stereo_motorcycle()[:2]
    elif len(given) == 1:
        if not given[0].is_dir():
            raise InputError(f"--photos: {given[0]} is not a folder, expected a folder or two images")
        pair = sorted(path for path in given[0].iterdir() if path.suffix.lower() in SUFFIXES)[:2]
        if len(pair) < 2:
            raise InputError(f"--photos: {given[0]} holds {len(pair)} photos, expected two or more")
    else:
        pair = given
    left, right = (framed(read_image(photo)) for photo in pair)
    return left, right


def framed(photo: UInt8) -> UInt8:
    """The middle of a photo in the shape of `SIZE`, at this size."""
    height, width = photo.shape[:2]
    scale = min(height / SIZE[0], width / SIZE[1])
    h, w = (min(side, round(scale * wanted)) for side, wanted in zip((height, width), SIZE, strict=True))
    y, x = (height - h) // 2, (width - w) // 2
    return np.asarray(cv2.resize(photo[y : y + h, x : x + w], SIZE[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def local_weights(name: str, folder: Path | None) -> list[Path]:
    """The files of a peer's weights in a folder; those in an installed package are found without being named.

    Raises:
        InputError: weights are in neither.
    """
    found = []
    for part in PEERS[name].parts:
        candidates = [folder / file for file in WEIGHTS[part].names] if folder else []
        files = [file for file in candidates if file.is_file()]
        if not files and not installed(WEIGHTS[part].package):
            raise InputError(f"{' or '.join(WEIGHTS[part].names)} is not in {folder or '--peers'}")
        found += files[:1]
    return found


def installed(package: str | None) -> bool:
    """Whether a package is there."""
    try:
        return bool(package and version(package))
    except PackageNotFoundError:
        return False


def matchers(names: Sequence[str], count: int, folder: Path | None) -> tuple[dict[str, Matcher], dict[str, str]]:
    """The methods that can be had, on the processor, and why the others cannot."""
    ready: dict[str, Matcher] = {}
    absent: dict[str, str] = {}
    for name in dict.fromkeys(names):
        try:
            weights = local_weights(name, folder) or None if name in PEERS else None
            ready[name] = tiepoint.load(name, max_keypoints=count, device="cpu", weights=weights)
        except (InputError, WorkError) as error:
            if name not in PEERS:
                raise
            absent[name] = str(error)
    return ready, absent


def match_all(ready: dict[str, Matcher], pair: tuple[UInt8, UInt8], rounds: int) -> list[Row]:
    """Time every method in turn."""
    taken: dict[str, list[float]] = {name: [] for name in ready}
    found: dict[str, int] = {}
    for _ in tqdm(range(rounds + WARM_UP), desc="matching", unit="round"):
        for name, matcher in ready.items():
            time.sleep(REST)
            start = time.perf_counter()
            matches = matcher(*pair)
            taken[name].append(1000 * (time.perf_counter() - start))
            found[name] = len(matches)
    kept = {name: times[WARM_UP:] for name, times in taken.items()}
    return [Row(name, backend(ready[name]), found[name], statistics.median(t), t) for name, t in kept.items()]


def backend(matcher: Matcher) -> str:
    """What a matcher runs on, as its fingerprint says."""
    facts = dict(fact.partition("=")[::2] for fact in matcher.fingerprint.split("; ")[1:])
    return facts.get("backend", "?")


def cold(pair: tuple[UInt8, UInt8], repeats: int, threads: int) -> dict[str, dict[str, float]]:
    """Seconds of whole processes from start to end, by what they write, and of the stages of one; medians.

    The first round is not counted: from then on the files lie in the system's memory.
    """
    whole: dict[str, list[float]] = {name: [] for name in COMMANDS}
    stages: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, thread_variables(threads):
        for name, photo in zip(("left.jpg", "right.jpg"), pair, strict=True):
            cv2.imwrite(f"{folder}/{name}", cv2.cvtColor(photo, cv2.COLOR_RGB2BGR))
        for index in tqdm(range(repeats + 1), desc="cold runs", unit="round"):
            for name, options in COMMANDS.items():
                start = time.perf_counter()
                fresh(["-m", "tiepoint", "match", "left.jpg", "right.jpg", *options], folder)
                whole[name] += [time.perf_counter() - start] if index else []
            told = json.loads(fresh([str(Path(__file__).with_name("startup.py")), "left.jpg", "right.jpg"], folder))
            for name, seconds in told.items():
                stages.setdefault(name, []).extend([seconds] if index else [])
    return {
        "commands": {name: statistics.median(seconds) for name, seconds in whole.items()},
        "stages": {name: statistics.median(seconds) for name, seconds in stages.items()},
    }


def fresh(arguments: Sequence[str], folder: str) -> str:
    """What a Python process of its own prints.

    Raises:
        WorkError: it fails.
    """
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        raise WorkError(f"`python {' '.join(arguments)}` ended with exit code {done.returncode}: {reason}")
    return done.stdout


def table(rows: Sequence[Row], absent: dict[str, str]) -> str:
    """The methods, with ratios to XFeat."""
    base = next((row.milliseconds for row in rows if row.method == REFERENCE), None)
    lines = [f"{'method':<22}{'runs on':<24}{'matches':>8}{'ms':>9}{f'× {REFERENCE}':>10}"]
    for row in rows:
        ratio = f"{row.milliseconds / base:.2f}" if base else "–"
        lines.append(f"{row.method[-21:]:<22}{row.backend:<24}{row.matches:>8}{row.milliseconds:>9.1f}{ratio:>10}")
    return "\n".join([*lines, *(f"{name:<22}left out: {reason}" for name, reason in absent.items())])


def run(options: argparse.Namespace) -> None:
    """Measure, print and write."""
    for name, least in (("threads", 1), ("repeats", 1), ("cold", 0), ("keypoints", 1)):
        if getattr(options, name) < least:
            raise InputError(f"--{name} is {getattr(options, name)}, expected {least} or more")
    if options.peers and not options.peers.is_dir():
        raise InputError(f"--peers: {options.peers} is not a folder")
    if options.json:
        check_writable(options.json)
    pair = photos(options.photos)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    with pinned_threads(options.threads):
        ready, absent = matchers((*options.methods, *options.model), options.keypoints, options.peers)
        pin_torch(options.threads)  # loading the peers has imported it
        rows = match_all(ready, pair, options.repeats)
    busy = "" if load is None else f", load before {load:.1f}"
    print(
        f"a pair at {SIZE[1]}×{SIZE[0]}, {options.keypoints} keypoints, {options.threads} threads, "
        f"median of {options.repeats} rounds{busy}\n\n{table(rows, absent)}\n"
    )
    files = {*embedded_models().values(), *(path for name in options.model if (path := Path(name)).is_file())}
    sizes = {path.name: path.stat().st_size for path in sorted(files)}
    print("\n".join(f"{name:<32}{size / 1e6:>8.2f} MB" for name, size in sizes.items()))
    starts = cold(pair, options.cold, options.threads) if options.cold else {}
    if starts:
        print(f"\n`tiepoint match`, whole process, median of {options.cold}")
        print("\n".join(f"  writing {name:<24}{seconds:>6.2f} s" for name, seconds in starts["commands"].items()))
        print("  of which, by stages:  " + ", ".join(f"{k} {1000 * v:.0f} ms" for k, v in starts["stages"].items()))
    if options.json:
        content: dict[str, Any] = {
            "size": SIZE,
            "keypoints": options.keypoints,
            "methods": [asdict(row) for row in rows],
            "left out": absent,
            "bytes": sizes,
            "cold": starts,
            "load": load,
            "environment": environment(options.threads),
        }
        with atomic_path(options.json) as path:
            path.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code is 0, 1 where the work failed, 2 where the input was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, nargs="+", default=[], help="two images, or a folder of them")
    parser.add_argument("--methods", nargs="+", default=METHODS, help="names that `tiepoint models` lists")
    parser.add_argument("--model", action="append", default=[], help="a further model file; may be repeated")
    parser.add_argument("--peers", type=Path, help="folder of the peers' weights")
    parser.add_argument("--keypoints", type=int, default=2048, help="an image")
    parser.add_argument("--threads", type=int, default=2, help="of everything that matches")
    parser.add_argument("--repeats", type=int, default=15, help="rounds of matching")
    parser.add_argument("--cold", type=int, default=5, help="rounds of fresh processes; 0 leaves them out")
    parser.add_argument("--json", type=Path, help="write the figures here")
    logs.setup()
    try:
        run(parser.parse_args(argv))
    except (InputError, WorkError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
