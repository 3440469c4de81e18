"""What every test may ask for: a folder of small photographs, and a cache that is not the user's."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

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
