"""Methods of a benchmark run: loaded when first needed, known without being loaded."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tiepoint.evaluation.cache import file_identity
from tiepoint.evaluation.environment import environment, pin_torch
from tiepoint.files import atomic_path
from tiepoint.images import UInt8
from tiepoint.runtime import Backend, Device, embedded, load
from tiepoint.runtime.matcher import Matcher, Measured

NEVER_SHRINK = 1 << 30  # px: the protocol has resized the images already


@dataclass(frozen=True, slots=True)
class Recipe:
    """What it takes to load a method, in another process too.

    Attributes:
        name: as `tiepoint.load` takes it.
        weights: local weight files; none leaves the choice to `tiepoint.load`.
        max_keypoints: keypoints an image at most.
        device: where it runs.
        backend: what runs the networks of ONNX files; all others have but one.
    """

    name: str
    weights: tuple[str, ...]
    max_keypoints: int
    device: Device
    backend: Backend = "auto"

    def load(self) -> Matcher:
        """The matcher itself, which matches images in the size that they are given.

        Raises:
            InputError: see `tiepoint.load`.
            WorkError: see `tiepoint.load`.
        """
        weights = list(self.weights) or None
        is_graph = embedded(self.name) or self.name.endswith(".onnx")
        backend = self.backend if is_graph else "auto"
        matcher = load(
            self.name, max_keypoints=self.max_keypoints, backend=backend, device=self.device, weights=weights
        )
        matcher.long_side = NEVER_SHRINK
        return matcher


class Method:
    """A method that is loaded when it is first needed.

    Args:
        recipe: how it is loaded.
        known: fingerprints by signature; a method whose signature is among them need not be loaded to be known.
        threads: to which torch is held, should loading the method bring it in.

    Attributes:
        recipe: how it is loaded.
        signature: what can be told of it without loading it.
        fingerprint: what decides its answer beside the images, as the loaded matcher tells it.

    Raises:
        InputError: there is no such method or weight file.
        WorkError: its weights cannot be fetched.
    """

    def __init__(self, recipe: Recipe, known: Mapping[str, str], *, threads: int) -> None:
        self.recipe, self._threads, self._warm = recipe, threads, False
        self.signature = _signature(recipe)
        self.fingerprint = known.get(self.signature) or self._matcher.fingerprint

    @property
    def name(self) -> str:
        """As it was asked for."""
        return self.recipe.name

    def measure(self, image0: UInt8, image1: UInt8) -> Measured:
        """Match two (H, W, 3) images; the first are matched twice, for a method's first answer takes longer."""
        if not self._warm:
            self._matcher.measure(image0, image1)
            self._warm = True
        return self._matcher.measure(image0, image1)

    @cached_property
    def _matcher(self) -> Matcher:
        matcher = self.recipe.load()
        pin_torch(self._threads)  # it may have been loaded only now
        return matcher


def read_fingerprints(path: Path) -> dict[str, str]:
    """Fingerprints by signature, as `write_fingerprints` has kept them; none where the file is missing or damaged."""
    with suppress(OSError, ValueError):
        known = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(known, dict):
            return {str(key): str(value) for key, value in known.items()}
    return {}


def write_fingerprints(path: Path, methods: Iterable[Method]) -> None:
    """Keep the methods' fingerprints beside those that are kept already."""
    known = read_fingerprints(path) | {method.signature: method.fingerprint for method in methods}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(known, indent=1), encoding="utf-8")


def _signature(recipe: Recipe) -> str:
    """One line of JSON: the files, options and versions that a fingerprint is made of, and the machine."""
    surroundings = environment(0)
    model = embedded(recipe.name) or Path(recipe.name)
    files = [*map(Path, recipe.weights), *([model] if model.is_file() else [])]
    told = {
        "name": recipe.name,
        "files": [file_identity(file) for file in files],
        "max_keypoints": recipe.max_keypoints,
        "device": recipe.device,
        "backend": recipe.backend,
        "versions": surroundings["versions"],
        "processor": surroundings["processor"],
        "gpu": Path("/proc/driver/nvidia").exists(),
    }
    return json.dumps(told, sort_keys=True)
