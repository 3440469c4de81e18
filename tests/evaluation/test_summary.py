from collections.abc import Sequence

import numpy as np
import pytest

from tiepoint.evaluation.metrics import auc
from tiepoint.evaluation.results import MethodResult, PairResult
from tiepoint.evaluation.summary import compare, deciding_figure, summarise

THRESHOLDS = (0.5, 1.0)
POSE_LIMITS = (5.0, 10.0, 20.0)
PLANE_LIMITS = (1.0, 3.0, 5.0, 10.0)
POINT_LIMITS = (3.0, 5.0, 10.0)


def result(
    name: str,
    errors: Sequence[float | None],
    *,
    within: list[list[float]] | None = None,
    mma: list[float] | None = None,
    precision: float | None = None,
    repeatability: float | None = None,
    matches: int = 50,
    seconds: dict[str, float] | None = None,
) -> PairResult:
    return PairResult(
        name=name,
        path0="0.png",
        path1="1.png",
        size0=(480, 640),
        size1=(480, 640),
        matches=matches,
        keypoints=None,
        errors=list(errors),
        inliers=[0 if error is None else matches - 10 for error in errors],
        within=within,
        mma=mma,
        precision=precision,
        repeatability=repeatability,
        seconds=seconds or {"match": 1.0},
        matches_file=f"{name}.npz",
    )


def poses(errors: Sequence[Sequence[float | None]]) -> list[PairResult]:
    """One pair a column; one row a threshold."""
    return [result(f"{number}", column) for number, column in enumerate(zip(*errors, strict=True))]


def summary(pairs: list[PairResult], name: str = "mine") -> MethodResult:
    return summarise(name, pairs, truth="pose", limits=POSE_LIMITS, thresholds=THRESHOLDS)


def test_the_figures_are_the_auc_in_percent() -> None:
    found = summary(poses([[1.0, 4.0, 12.0, None], [30.0, 30.0, 30.0, 30.0]]))
    expected = 100 * auc(np.array([1.0, 4.0, 12.0, np.inf]), POSE_LIMITS)
    assert found.figures == pytest.approx(dict(zip(("AUC@5", "AUC@10", "AUC@20"), expected, strict=True)))


def test_the_threshold_is_the_best_at_five() -> None:
    # the second threshold is better at 5 and worse at 10 and 20
    found = summary(poses([[6.0, 6.0, 6.0, 6.0], [1.0, 19.0, None, None]]))
    assert found.threshold == 1.0
    assert found.figures["AUC@20"] < 50
    assert found.failures == 2
    assert found.inliers == 20


def test_of_equal_thresholds_the_first_counts() -> None:
    assert summary(poses([[1.0, 2.0], [1.0, 2.0]])).threshold == 0.5


def test_homographies_also_have_their_accuracy() -> None:
    pairs = poses([[0.5, 3.0, 9.0, None]])
    found = summarise("mine", pairs, truth="homography", limits=PLANE_LIMITS, thresholds=[2.0])
    shares = {"MHA@1": 25.0, "MHA@3": 50.0, "MHA@5": 50.0, "MHA@10": 75.0}
    areas = 100 * auc(np.array([0.5, 3.0, 9.0, np.inf]), PLANE_LIMITS)
    expected = dict(zip(("AUC@1", "AUC@3", "AUC@5", "AUC@10"), areas, strict=True)) | shares
    assert found.figures == pytest.approx(expected)


def test_marked_points_count_each_pair_alike() -> None:
    pairs = [
        result("a", [1.0, 2.0], within=[[0.0, 0.5, 1.0], [0.2, 0.4, 0.8]]),
        result("b", [1.0, None], within=[[0.4, 0.7, 0.9], [0.0, 0.0, 0.0]]),
    ]
    found = summarise("mine", pairs, truth="points", limits=POINT_LIMITS, thresholds=THRESHOLDS)
    assert found.threshold == 0.5
    assert found.figures == pytest.approx({"within@3": 20, "within@5": 60, "within@10": 95})
    assert (found.mma, found.precision, found.repeatability) == (None, None, None)


def test_pairs_without_matches_count_as_nothing_right() -> None:
    curve = [0.1 * step for step in range(1, 11)]
    pairs = [
        result("a", [1.0], mma=curve, precision=0.3, repeatability=0.5),
        result("b", [None], mma=[0.0] * 10, precision=None, repeatability=None, matches=0),
    ]
    found = summarise("mine", pairs, truth="homography", limits=PLANE_LIMITS, thresholds=[1.0])
    assert found.mma == pytest.approx([5.0 * step for step in range(1, 11)])
    assert found.precision == pytest.approx(15)
    assert found.repeatability == pytest.approx(50)  # the pair without covisible keypoints says nothing
    assert (found.matches, found.failures) == (25, 1)


def test_seconds_are_medians_by_stage() -> None:
    pairs = [
        result("a", [1.0, 1.0], seconds={"read": 1.0, "match": 5.0}),
        result("b", [1.0, 1.0], seconds={"read": 3.0, "match": 7.0}),
        result("c", [1.0, 1.0], seconds={"read": 2.0}),
    ]
    found = summary(pairs)
    assert found.seconds == {"read": 2.0, "match": 6.0}
    assert found.pairs == pairs


def test_nothing_cannot_be_summed_up() -> None:
    with pytest.raises(ValueError, match="the pairs of mine cannot be summed up"):
        summary([])


@pytest.mark.parametrize(
    ("truth", "limits", "figure"),
    [
        ("pose", POSE_LIMITS, "AUC@5"),
        ("homography", PLANE_LIMITS, "AUC@5"),
        ("points", POINT_LIMITS, "within@5"),
        ("points", (2, 4, 8), "within@4"),
        ("pose", (2.5,), "AUC@2.5"),
    ],
)
def test_the_figure_at_five_decides_or_the_middle_one(truth: str, limits: Sequence[float], figure: str) -> None:
    assert deciding_figure(truth, limits) == figure  # type: ignore[arg-type]


def versus(one: MethodResult, other: MethodResult, figure: str | None = None) -> tuple[float, float, float, bool]:
    found = compare(one, other, truth="pose", limits=POSE_LIMITS, thresholds=THRESHOLDS, figure=figure)
    assert (found.method, found.reference) == (one.name, other.name)
    return found.difference, found.low, found.high, found.certain


def test_a_large_difference_is_certain_and_a_small_one_is_not() -> None:
    rng = np.random.default_rng(0)
    errors = rng.uniform(0, 8, 80)
    base = summary(poses([errors.tolist(), [None] * 80]), "base")
    better = summary(poses([[None] * 80, (errors / 2).tolist()]), "better")  # at the other threshold
    same = summary(poses([rng.permutation(errors).tolist(), [None] * 80]), "same")
    difference, low, high, certain = versus(better, base)
    assert difference == pytest.approx(better.figures["AUC@5"] - base.figures["AUC@5"])
    assert 0 < low < difference < high
    assert certain
    assert versus(base, better)[0] == pytest.approx(-difference)
    assert versus(base, better)[3]
    difference, low, high, certain = versus(same, base)
    assert low < 0 < high
    assert not certain


def test_a_method_does_not_differ_from_itself() -> None:
    mine = summary(poses([[1.0, 4.0, None], [2.0, 2.0, 2.0]]))
    assert versus(mine, mine) == (0, 0, 0, False)


def test_any_figure_can_be_compared() -> None:
    one, other = (
        summarise(name, poses([errors]), truth="homography", limits=PLANE_LIMITS, thresholds=[1.0])
        for name, errors in (("one", [0.5, 2.0, 4.0, 9.0]), ("other", [2.0, 2.0, 4.0, None]))
    )
    found = compare(one, other, truth="homography", limits=PLANE_LIMITS, thresholds=[1.0], figure="MHA@1")
    assert (found.figure, found.difference) == ("MHA@1", 25)
    assert found.standard_error == pytest.approx(100 * np.sqrt(0.25 * 0.75 / 4), rel=0.1)


def test_shares_of_marked_points_are_compared_pair_by_pair() -> None:
    one, other = (
        summarise(
            name,
            [result(f"{number}", [1.0], within=[[0, share, 1]]) for number, share in enumerate(shares)],
            truth="points",
            limits=POINT_LIMITS,
            thresholds=[1.0],
        )
        for name, shares in (("one", [0.5, 0.7, 0.9]), ("other", [0.4, 0.6, 0.8]))
    )
    found = compare(one, other, truth="points", limits=POINT_LIMITS, thresholds=[1.0])
    assert found.figure == "within@5"
    assert (found.difference, found.low, found.high) == pytest.approx((10, 10, 10))
    assert found.certain


def test_only_what_was_measured_on_the_same_pairs_is_compared() -> None:
    one, other = summary(poses([[1.0, 2.0], [1.0, 2.0]]), "one"), summary(poses([[1.0], [1.0]]), "other")
    with pytest.raises(ValueError, match="one and other were not measured on the same pairs"):
        versus(one, other)
    with pytest.raises(ValueError, match="no figure 'AUC@7', expected one of AUC@5, AUC@10, AUC@20"):
        versus(one, one, "AUC@7")
