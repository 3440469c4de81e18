"""What a benchmark run finds, as plain values: the content of `results.json`.

Whatever depends on the clock or the machine's load lies under the name `seconds` or in `Results.timing`, so that two
runs can be compared without them.
"""

from dataclasses import dataclass, field
from typing import Any

# of a pair's way through a run, in their order; "total" is image arrays in to matches out
STAGES = ("read", "extract", "match", "estimate", "total")


@dataclass(frozen=True, slots=True)
class PairResult:
    """What one method did on one pair. Lists run over the protocol's inlier thresholds unless said otherwise.

    Attributes:
        name: of the pair.
        path0: image 0.
        path1: image 1.
        size0: (height, width) in which image 0 was matched.
        size1: the same of image 1.
        matches: how many.
        keypoints: how many in either image; None where the method has no detector.
        errors: corner error in pixels, pose error in degrees, or the median distance of the marked points in pixels;
            None where no model was found.
        inliers: of the estimated model.
        within: for marked points: the share of them within each of the benchmark's limits, one list a threshold.
        mma: share of the matches whose error under the true homography is at most 1, 2, ... 10 px.
        precision: share of the matches right under the truth within 3 px (reprojection) or, for poses,
            5e-4 of the epipolar distance in normalised coordinates; None without matches or truth.
        repeatability: share of the covisible keypoints found again within 3 px; for homographies.
        seconds: wall time of the stages: read, extract, match, estimate (all thresholds together). Where a method
            cannot tell extract from match, match holds both.
        matches_file: the cached matches, relative to the run's folder.
    """

    name: str
    path0: str
    path1: str
    size0: tuple[int, int]
    size1: tuple[int, int]
    matches: int
    keypoints: tuple[int, int] | None
    errors: list[float | None]
    inliers: list[int]
    within: list[list[float]] | None
    mma: list[float] | None
    precision: float | None
    repeatability: float | None
    seconds: dict[str, float]
    matches_file: str


@dataclass(frozen=True, slots=True)
class MethodResult:
    """One method on one benchmark, summed up.

    Attributes:
        name: as it was asked for.
        threshold: the inlier threshold at which it does best (by its figure at 5), pixels.
        figures: by name, in percent: "AUC@5", "MHA@3", or "within@5".
        mma: means over the pairs, at 1 ... 10 px, percent; None where there is no true homography.
        precision: mean over the pairs, percent.
        repeatability: mean over the pairs, percent.
        matches: median over the pairs.
        inliers: median over the pairs, at `threshold`.
        failures: pairs without a model at `threshold`.
        seconds: median over the pairs, by stage.
        pairs: every pair, in the benchmark's order.
    """

    name: str
    threshold: float
    figures: dict[str, float]
    mma: list[float] | None
    precision: float | None
    repeatability: float | None
    matches: float
    inliers: float
    failures: int
    seconds: dict[str, float]
    pairs: list[PairResult]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two methods on the same pairs, each at its best threshold.

    Attributes:
        method: whose figure minus ...
        reference: ... whose.
        figure: which one.
        difference: percentage points.
        low: end of the 95 % interval (paired bootstrap over the pairs).
        high: the other end.
        standard_error: of the difference.
        certain: whether the interval leaves out 0; else the difference is inside its noise.
    """

    method: str
    reference: str
    figure: str
    difference: float
    low: float
    high: float
    standard_error: float
    certain: bool


@dataclass(frozen=True, slots=True)
class SetResult:
    """One benchmark.

    Attributes:
        name: of the benchmark.
        title: what it is.
        truth: "homography", "pose" or "points".
        unit: of the errors: "px" or "degrees".
        limits: of its figures.
        licence: of the data.
        source: of the data.
        folder: where the data lay.
        left_out: one sentence for every pair that could not be used.
        methods: in the order asked for; the first is what the others are compared with.
        comparisons: every method with the first.
        protocol: every option that this benchmark's figures depend on, its thresholds among them; conventions such as
            LoFTR's measure homographies otherwise than poses. Where it is empty, that of the whole run holds.
    """

    name: str
    title: str
    truth: str
    unit: str
    limits: list[float]
    licence: str
    source: str
    folder: str
    left_out: list[str]
    methods: list[MethodResult]
    comparisons: list[Comparison]
    protocol: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Timing:
    """One method's time on the same pairs as the others, methods in turn, warm-up excluded.

    Attributes:
        method: its name.
        pairs: on how many pairs.
        repeats: of each pair.
        median: by stage, and "total" for image arrays in to matches out, seconds.
        low: 25th percentile of the same.
        high: 75th percentile of the same.
        peak_memory: of a process that does nothing else, bytes above what it had before the method was loaded.
    """

    method: str
    pairs: int
    repeats: int
    median: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]
    peak_memory: int | None


@dataclass(frozen=True, slots=True)
class Results:
    """A whole run.

    Attributes:
        command: as it was typed.
        protocol: every option that a figure depends on, where a benchmark does not say otherwise.
        environment: versions, processor, threads.
        sets: the benchmarks, in the order asked for.
        timing: one a method.
    """

    command: str
    protocol: dict[str, Any]
    environment: dict[str, Any]
    sets: list[SetResult]
    timing: list[Timing]
