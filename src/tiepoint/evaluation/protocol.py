"""Protocols by name: everything beside the matcher and the pairs that a figure depends on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from tiepoint.errors import InputError
from tiepoint.evaluation.estimators import EstimatorName
from tiepoint.evaluation.pairs import Truth
from tiepoint.geometry import MIN_ITERATIONS, check_sampling

Frame = Literal["resized", "stored"]
Interpolation = Literal["area", "linear"]

SMALLEST_SIDE = 32
_SIZES = ("long_side", "short_side", "exact_size")


@dataclass(frozen=True, slots=True)
class Protocol:
    """What a figure depends on beside the matcher and the pairs; printed with every figure.

    At most one of `long_side`, `short_side` and `exact_size` is given; with none, images keep their size.

    Attributes:
        name: of the convention, and which of its values were changed.
        source: where the convention is written down, and what is known to differ from it here.
        long_side: the longer side of the resized images in pixels.
        short_side: the shorter side of the resized images in pixels.
        exact_size: (height, width) of the resized images; their proportions may change.
        enlarge: whether smaller images are enlarged to that side; else they keep their size.
        divisible_by: both sides are then rounded down to a multiple of this many pixels.
        interpolation: "area" averages over what shrinks to a pixel; "linear" is bilinear and aliases.
        frame: the pixels in which thresholds are meant and errors are measured: of the resized images, or of the
            images as stored.
        max_keypoints: what a matcher may detect in each image.
        max_matches: how many of the best matches count; None for all.
        estimator: the robust estimator.
        max_iterations: of its sampling.
        min_iterations: of its sampling; 0 for OpenCV's, which know no least number.
        confidence: at which it stops sooner.
        seed: of its sampling.
        thresholds: inlier thresholds in pixels of `frame`; each method counts at its best one.

    Raises:
        InputError: a value is out of its range.
    """

    name: str = "tiepoint"
    source: str = ""
    long_side: int | None = 1024
    short_side: int | None = None
    exact_size: tuple[int, int] | None = None
    enlarge: bool = False
    divisible_by: int = 1
    interpolation: Interpolation = "area"
    frame: Frame = "resized"
    max_keypoints: int = 2048
    max_matches: int | None = None
    estimator: EstimatorName = "poselib"
    max_iterations: int = 2000
    min_iterations: int = MIN_ITERATIONS
    confidence: float = 0.99999
    seed: int = 0
    thresholds: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0)

    def __post_init__(self) -> None:
        # JSON and command lines bring lists
        object.__setattr__(self, "thresholds", tuple(self.thresholds))
        if self.exact_size is not None:
            object.__setattr__(self, "exact_size", tuple(self.exact_size))
        _check_images(self)
        _check_estimator(self)

    def __str__(self) -> str:
        """All of it in words, one paragraph."""
        kept = "all matches" if self.max_matches is None else f"the best {self.max_matches} matches"
        least = f"{self.min_iterations}-" if self.min_iterations else "at most "
        sweep = "each method at its best by the figure at 5" if len(self.thresholds) > 1 else "the same for all methods"
        words = [
            f"Protocol {self.name}: {_size_in_words(self)}, {self.max_keypoints} keypoints, {kept};",
            f"thresholds and errors in pixels of the {self.frame} images;",
            f"{self.estimator}, {least}{self.max_iterations} iterations,",
            f"confidence {self.confidence:g}, seed {self.seed},",
            f"inlier thresholds {', '.join(f'{threshold:g}' for threshold in self.thresholds)} px, {sweep}.",
        ]
        return " ".join(words)


def _check_images(protocol: Protocol) -> None:
    sizes = [key for key in _SIZES if getattr(protocol, key) is not None]
    if len(sizes) > 1:
        raise InputError(f"{' and '.join(sizes)} are given, expected at most one of them")
    _check_choice("interpolation", protocol.interpolation, get_args(Interpolation))
    _check_choice("frame", protocol.frame, get_args(Frame))
    if protocol.exact_size is not None and len(protocol.exact_size) != 2:
        raise InputError(f"exact_size is {protocol.exact_size}, expected (height, width)")
    sides = [protocol.long_side, protocol.short_side, *(protocol.exact_size or ())]
    for side in sides:
        if side is not None and side < SMALLEST_SIDE:
            raise InputError(f"{sizes[0]} is {getattr(protocol, sizes[0])}, expected {SMALLEST_SIDE} px or more")
    for key in ("divisible_by", "max_keypoints", "max_matches"):
        value = getattr(protocol, key)
        if value is not None and value < 1:
            raise InputError(f"{key} is {value}, expected 1 or more")


def _check_estimator(protocol: Protocol) -> None:
    _check_choice("estimator", protocol.estimator, get_args(EstimatorName))
    if not protocol.thresholds or len(set(protocol.thresholds)) < len(protocol.thresholds):
        raise InputError(f"thresholds are {protocol.thresholds}, expected one or more, each once")
    for threshold in protocol.thresholds:
        check_sampling(
            threshold,
            seed=protocol.seed,
            max_iterations=protocol.max_iterations,
            min_iterations=protocol.min_iterations,
            confidence=protocol.confidence,
        )
    if protocol.min_iterations and protocol.estimator != "poselib":
        found = f"min_iterations is {protocol.min_iterations}"
        raise InputError(f"{found}, expected 0: {protocol.estimator} knows no least number of iterations")


def _check_choice(key: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise InputError(f"{key} is {value!r}, expected one of {', '.join(choices)}")


def _size_in_words(protocol: Protocol) -> str:
    if protocol.exact_size is not None:
        height, width = protocol.exact_size
        return f"images of {width} x {height} px"
    sign = "=" if protocol.enlarge else "<="
    sides = [("long", protocol.long_side), ("short", protocol.short_side)]
    sizes = [f"{name} side {sign} {side} px" for name, side in sides if side is not None] or ["images as stored"]
    multiple = [f"in multiples of {protocol.divisible_by} px"] if protocol.divisible_by > 1 else []
    return " ".join(sizes + multiple)


# What each convention does, read in its repository; `source` goes into the reports.
PROTOCOLS: Final[Mapping[str, Protocol]] = MappingProxyType(
    {
        "tiepoint": Protocol(source="the default of this package"),
        "loftr": Protocol(
            name="loftr",
            source=(
                "LoFTR (Sun et al., CVPR 2021): its test on MegaDepth-1500. There the threshold is divided by the "
                "mean of fx of camera 0 and fy of camera 1, here of all four focal lengths; there images are padded "
                "to squares and keypoints are scaled without the half pixel."
            ),
            long_side=840,
            enlarge=True,
            divisible_by=8,
            interpolation="linear",
            frame="stored",
            estimator="opencv-ransac",
            max_iterations=1000,
            min_iterations=0,
            thresholds=(0.5,),
        ),
        "xfeat": Protocol(
            name="xfeat",
            source=(
                "XFeat (Potje et al., CVPR 2024): its test on MegaDepth-1500. There keypoints are scaled without the "
                "half pixel. Its test on HPatches is not published as code: on homographies this is not its row."
            ),
            long_side=1200,
            divisible_by=32,
            interpolation="linear",
            frame="stored",
            max_keypoints=4096,
            max_iterations=1000,
            min_iterations=20,
            thresholds=(2.5,),
        ),
        "glue-factory": Protocol(
            name="glue-factory",
            source=(
                "glue-factory with eval.estimator=poselib eval.ransac_th=-1, as LightGlue (Lindenberger et al., ICCV "
                "2023) is measured in its README. There the best threshold is that of the largest mean over all "
                "AUCs, here that of the largest AUC@5; there images are blurred and then resized, pixel corners are at "
                "integers and the corners of the image are those of its area."
            ),
            long_side=1600,
            enlarge=True,
            max_iterations=100_000,
            min_iterations=1000,
            confidence=0.9999,
            thresholds=(0.5, 1.0, 1.5, 2.0, 2.5, 3.0),
        ),
    }
)

# What differs for one benchmark, by its name, or for all with one kind of truth.
_VGA: Final = {"long_side": None, "exact_size": (480, 640), "enlarge": True, "divisible_by": 1, "frame": "resized"}
_HPATCHES: Final = {"long_side": None, "short_side": 480, "enlarge": True, "divisible_by": 1, "frame": "resized"}
_VARIANTS: Final[Mapping[str, Mapping[str, Mapping[str, Any]]]] = MappingProxyType(
    {
        "loftr": {
            "scannet1500": _VGA,
            # the authors in issues 105 and 136 of their repository: cv2.findHomography(a, b, cv2.RANSAC, 3.0)
            "homography": _HPATCHES
            | {"max_matches": 1024, "max_iterations": 2000, "confidence": 0.995, "thresholds": (3.0,)},
        },
        "xfeat": {
            "scannet1500": {
                "long_side": None,
                "divisible_by": 1,
                "max_iterations": 10_000,
                "min_iterations": 1000,
                "thresholds": tuple(step / 2 for step in range(1, 13)),
            },
        },
        "glue-factory": {"scannet1500": _VGA, "homography": _HPATCHES | {"max_keypoints": 1024}},
    }
)


def make_protocol(
    name: str = "tiepoint", *, benchmark: str = "", truth: Truth | None = None, **changes: Any
) -> Protocol:
    """A protocol by its name, as it applies to a benchmark, with some of its values changed.

    Args:
        name: a key of `PROTOCOLS`.
        benchmark: name of the benchmark; some conventions treat ScanNet otherwise than MegaDepth.
        truth: what is known of its pairs; some conventions treat homographies otherwise than poses.
        changes: values for fields of `Protocol`; None keeps the convention's. Of the three ways to give a size, one
            replaces another.

    Returns:
        The protocol; its name says what was changed.

    Raises:
        InputError: there is no such protocol or field, or a value is out of its range.
    """
    if name not in PROTOCOLS:
        raise InputError(f"there is no protocol {name!r}, expected one of {', '.join(PROTOCOLS)}")
    variants = _VARIANTS.get(name, {})
    base = replace(PROTOCOLS[name], **variants.get(benchmark, variants.get(truth or "", {})))
    given = {key: value for key, value in changes.items() if value is not None}
    open_to_change = [field.name for field in fields(Protocol) if field.name not in ("name", "source")]
    for key in given:
        if key not in open_to_change:
            raise InputError(f"a protocol has no value {key!r}, expected one of {', '.join(open_to_change)}")
    changed = replace(base, **_implied(given, base), **given)
    differing = [key for key in open_to_change if getattr(changed, key) != getattr(base, key) and key in given]
    return replace(changed, name=f"{name} with other {', '.join(differing)}") if differing else changed


def _implied(given: Mapping[str, Any], base: Protocol) -> dict[str, Any]:
    """What must change along with the values given, unless it is given itself."""
    implied: dict[str, Any] = {}
    if any(key in given for key in _SIZES):
        implied |= dict.fromkeys(_SIZES)
    if given.get("estimator", base.estimator) != base.estimator:
        implied["min_iterations"] = MIN_ITERATIONS if given["estimator"] == "poselib" else 0
    return {key: value for key, value in implied.items() if key not in given}
