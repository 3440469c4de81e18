"""What every test may ask for: a folder of small photographs, and a cache that is not the user's."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from PIL import Image

from tiepoint.evaluation.cache import Cached, write_cached
from tiepoint.evaluation.protocol import make_protocol
from tiepoint.evaluation.results import PairResult, Results, SetResult, Timing
from tiepoint.evaluation.results_io import write_results
from tiepoint.evaluation.summary import compare, summarise
from tiepoint.geometry import warp_points
from tiepoint.types import Matches

# Lightning's own, of which no test of ours is about: it asks torch in a way that torch will retire,
# and recommends more workers than a test has photographs
IRRELEVANT = (
    r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning",
    r"ignore:The '\w+_dataloader' does not have many workers",
)


def pytest_configure(config: pytest.Config) -> None:
    for line in IRRELEVANT:
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or writes the user's own indices."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIEPOINT_CACHE", str(folder))
        # Lightning's parser calls what jsonargparse will retire
        patch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
        yield folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of eight JPEGs, 160×120: smooth random texture under random shapes."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(8):
        rng = np.random.default_rng(seed)
        coarse = rng.uniform(40, 216, (15, 20, 3)).astype(np.float32)
        image = cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)
        for _ in range(12):
            corner = rng.integers(0, (150, 110))
            colour = rng.integers(0, 256, 3).tolist()
            cv2.rectangle(image, corner.tolist(), (corner + rng.integers(6, 30, 2)).tolist(), colour, cv2.FILLED)
            cv2.circle(image, rng.integers(0, (160, 120)).tolist(), int(rng.integers(3, 12)), colour[::-1], 2)
        Image.fromarray(image).save(folder / f"photo{seed}.jpg", quality=92)
    return folder


@pytest.fixture(scope="session")
def drawn(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photographs in `images/` and an edge map of each in `edges/`: two to test, the others to train with."""
    folder = tmp_path_factory.mktemp("drawn")
    for number, path in enumerate(sorted(photos.iterdir())):
        split = "test" if number < 2 else "train"
        image = np.asarray(Image.open(path))
        for kind, pixels in (("images", image), ("edges", cv2.Canny(image, 100, 200))):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / kind / split / f"{path.stem}.png")
    return folder


@pytest.fixture(scope="session")
def small_fit(photos: Path) -> Callable[..., list[str]]:
    """The command line of a training of seconds, by the shipped recipe, with options that win over these."""
    recipe = Path(__file__).parents[1] / "recipes" / "photos.yaml"

    def command(*options: str) -> list[str]:
        return [
            *("fit", "--config", str(recipe), "--data.folders", str(photos), "--data.size", "[64, 64]"),
            *("--data.batch_size", "2", "--data.held_out_pairs", "2", "--data.num_workers", "0"),
            *("--model.detections", "20", "--model.max_keypoints", "32", "--trainer.accelerator", "cpu"),
            *("--trainer.log_every_n_steps", "1", *options),
        ]

    return command


class PosedView(NamedTuple):
    """A view of a made scene: K in pixels, T world to camera, depth in metres."""

    image: np.ndarray
    depth: np.ndarray
    K: np.ndarray
    T: np.ndarray


@pytest.fixture(scope="session")
def posed_scenes() -> list[list[PosedView]]:
    """Three scenes, five views of 128×96 px each: a tilted painted wall, and a painted panel before it."""
    return [[_seen(scene, number) for number in range(5)] for scene in range(3)]


@pytest.fixture(scope="session")
def see() -> Callable[..., PosedView]:
    """Makes a view of a scene by their numbers, with a camera `K` of its own if there is one."""
    return _seen


def _seen(scene: int, number: int, K: np.ndarray | None = None) -> PosedView:
    rng = np.random.default_rng((scene, number))
    if K is None:
        K = np.array([[110.0 + 4 * number, 0, 63.5 + number], [0, 112.0, 47.0 - number], [0, 0, 1]])
    T = np.eye(4)
    T[:3, :3] = cv2.Rodrigues(rng.uniform(-0.08, 0.08, 3))[0]
    T[:3, 3] = rng.uniform(-0.3, 0.3, 3)
    rays = np.stack([*np.meshgrid(np.arange(128.0), np.arange(96.0)), np.ones((96, 128))], -1) @ np.linalg.inv(K).T
    centre, rays = -T[:3, :3].T @ T[:3, 3], rays @ T[:3, :3]
    image, depth = np.zeros((96, 128, 3), np.uint8), np.full((96, 128), np.inf)
    for which, (normal, distance) in enumerate((((0.15, -0.1, 1.0), 4.0), ((-0.1, 0.05, 1.0), 2.6))):
        along = (distance - centre @ normal) / (rays @ normal)
        place = centre + along[..., None] * rays
        u, v = (90 + 45 * place[..., :2] + 40 * which).astype(np.float32).transpose(2, 0, 1)
        shown = along < depth
        if which:  # the panel ends
            shown &= (np.abs(place[..., 0] - 0.2) < 0.5) & (np.abs(place[..., 1]) < 0.4)
        painted = cv2.remap(_painting(2 * scene + which), u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        image[shown], depth[shown] = painted[shown], along[shown]
    return PosedView(image, depth.astype(np.float32), K, T)


@pytest.fixture(scope="session")
def posed(posed_scenes: list[list[PosedView]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scenes as a `pairs.json` in the style of tiepoint: ten pairs each, with overlaps from 0.2 to 0.65."""
    folder = tmp_path_factory.mktemp("posed")
    entries = []
    for name, views in zip("abc", posed_scenes, strict=True):
        for number, view in enumerate(views):
            Image.fromarray(view.image).save(folder / f"{name}{number}.png")
            depth = (1000 * view.depth).round().astype(np.uint16)
            Image.fromarray(depth).save(folder / f"{name}{number}_depth.png")
        for index, (i, j) in enumerate(combinations(range(len(views)), 2)):
            entry = {
                **{f"image{side}": f"{name}{view}.png" for side, view in enumerate((i, j))},
                **{f"depth{side}": f"{name}{view}_depth.png" for side, view in enumerate((i, j))},
                **{f"K{side}": views[view].K.tolist() for side, view in enumerate((i, j))},
                "T_0to1": (views[j].T @ np.linalg.inv(views[i].T)).tolist(),
                "scene": name,
                "overlap": 0.2 + 0.05 * index,
            }
            entries.append(entry)
    (folder / "pairs.json").write_text(json.dumps({"pairs": entries}))
    return folder


# of a made-up run: at 3 px, the errors of either method on four pairs; at the other thresholds they are twice as large
ERRORS = {"sift": [0.5, 2.0, None, 8.0], "<script>alert(1)</script>": [1.5, 80.0, 1.0, 9.0]}
PAIRS = ["wall/1-2", "wall/1-3", "tree & <b>bush</b>/1-2", "tree & <b>bush</b>/1-3"]
SHIFT = np.array([[1.0, 0.0, 7.0], [0.0, 1.0, -4.0], [0.0, 0.0, 1.0]])


@pytest.fixture(scope="session")
def run_folder(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a benchmark run as `tiepoint benchmark` leaves it: results.json, and the matches that it names."""
    folder = tmp_path_factory.mktemp("run")
    protocol = make_protocol()
    rows: dict[str, list[PairResult]] = {}
    for name, errors in ERRORS.items():
        rows[name] = []
        for index, (pair, error) in enumerate(zip(PAIRS, errors, strict=True)):
            matches, inliers = _shifted_matches(seed=index)
            file = f"matches/{len(rows)}-{index}.npz"
            write_cached(folder / file, Cached(matches, None, None, (1.0, 1.0), (1.0, 1.0), {}), "key")
            told = [None if error is None else 2 * error] * 3 + [error]
            seconds = {"read": 0.01, "extract": 0.03, "match": 0.01 * len(rows), "estimate": 0.1}
            paths = [str(photos / f"photo{index}.jpg")] * 2
            mma = [step / 10 for step in range(1, 11)]
            counts = [inliers - 1] * 3 + [inliers]
            sizes, keypoints = ((120, 160), (120, 160)), (99, 98)
            shares = (None, mma, 0.75, 0.5)
            rows[name].append(
                PairResult(pair, *paths, *sizes, len(matches), keypoints, told, counts, *shares, seconds, file)
            )
    limits = {"truth": "homography", "limits": [1.0, 3.0, 5.0, 10.0], "thresholds": protocol.thresholds}
    methods = [summarise(name, pairs, **limits) for name, pairs in rows.items()]
    found = SetResult(
        name="walls",
        title="walls & trees",
        truth="homography",
        unit="px",
        limits=[1.0, 3.0, 5.0, 10.0],
        licence="CC0 <none>",
        source="made up for a test",
        folder=str(photos),
        left_out=["wall/1-4: 4.jpg does not exist, expected an image file"],
        methods=methods,
        comparisons=[compare(methods[1], methods[0], **limits)],
    )
    timing = [Timing("sift", 4, 5, {"match": 0.04, "total": 0.041}, {"total": 0.040}, {"total": 0.045}, 12_000_000)]
    environment = {"versions": {"numpy": np.__version__}, "processor": "a processor", "threads": 1}
    results = Results("tiepoint benchmark sift", asdict(protocol), environment, [found], timing)
    write_results(results, folder / "results.json")
    return folder


def _shifted_matches(seed: int) -> tuple[Matches, int]:
    """Thirty matches of which twenty agree with SHIFT, and how many do."""
    rng = np.random.default_rng(seed)
    points0 = rng.uniform(10, 110, (30, 2))
    points1 = warp_points(SHIFT, points0)
    points1[20:] = rng.uniform(10, 110, (10, 2))
    scores = np.linspace(1, 0, 30)
    return Matches(points0, points1, scores, (120, 160), (120, 160)), 20


@pytest.fixture(scope="session")
def pair_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small benchmarks, views of painted planes: homography (4 pairs), pose (3 pairs), hard (2 pairs)."""
    root = tmp_path_factory.mktemp("sets")
    K = np.array([[260.0, 0.0, 119.5], [0.0, 260.0, 89.5], [0.0, 0.0, 1.0]])
    poses = [(np.array([0.01, -0.05, 0.02]) * (1 + k), np.array([0.2, 0.05 * k, 0.1])) for k in range(3)]
    # of a plane at distance 2, seen by camera 0 from the front
    homographies = [K @ (cv2.Rodrigues(r)[0] + np.outer(t, [0, 0, 0.5])) @ np.linalg.inv(K) for r, t in poses]
    (root / "pose").mkdir()
    lines = []
    for index in range(2):
        photo = _painting(index)
        folder = root / "homography" / f"painting{index}"
        folder.mkdir(parents=True)
        Image.fromarray(photo).save(folder / "1.png")
        for k, H in enumerate(homographies[:2], start=2):
            Image.fromarray(cv2.warpPerspective(photo, H, (240, 180))).save(folder / f"{k}.png")
            np.savetxt(folder / f"H_1_{k}", H / H[2, 2])
    for k, (r, t) in enumerate(poses):
        Image.fromarray(photo).save(root / "pose" / "view.png")
        Image.fromarray(cv2.warpPerspective(photo, homographies[k], (240, 180))).save(root / "pose" / f"view{k}.png")
        T = np.block([[cv2.Rodrigues(r)[0], t[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]])
        numbers = " ".join(f"{value:.17g}" for value in [*K.ravel(), *K.ravel(), *T.ravel()])
        lines.append(f"view.png view{k}.png 0 0 {numbers}")
    (root / "pose" / "pairs_superglue.txt").write_text("\n".join(lines) + "\n")
    grid = np.stack(np.meshgrid([60.0, 120.0, 180.0], [50.0, 90.0, 130.0]), axis=-1).reshape(-1, 1, 2)
    for k, H in enumerate(homographies[:2]):
        folder = root / "hard" / f"marked{k}"
        folder.mkdir(parents=True)
        Image.fromarray(photo).save(folder / "1.png")
        Image.fromarray(cv2.warpPerspective(photo, H, (240, 180))).save(folder / "2.png")
        marked = cv2.perspectiveTransform(grid, H)
        np.savetxt(folder / "corrs_1_2.txt", np.hstack([grid[:, 0], marked[:, 0]]))
    return root


def _painting(seed: int) -> np.ndarray:
    """A photograph-like image, 240×180, with corners all over."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.uniform(40, 216, (12, 16, 3)), (240, 180), interpolation=cv2.INTER_CUBIC)
    image = image.clip(0, 255).astype(np.uint8)
    for _ in range(150):
        corner = rng.integers(0, (235, 175))
        cv2.rectangle(
            image, corner.tolist(), (corner + rng.integers(3, 16, 2)).tolist(), rng.integers(0, 256, 3).tolist(), -1
        )
    return cv2.GaussianBlur(image, (3, 3), 0)
