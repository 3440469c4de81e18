import json
from dataclasses import asdict, fields
from typing import Any

import pytest

from tiepoint.errors import InputError
from tiepoint.evaluation.protocol import PROTOCOLS, Protocol, make_protocol


def test_the_default_is_the_protocol_of_the_package() -> None:
    assert make_protocol() == PROTOCOLS["tiepoint"]
    default = Protocol()
    # the accuracy protocol that the documentation states
    assert (default.long_side, default.max_keypoints, default.estimator) == (1024, 2048, "poselib")
    assert (default.min_iterations, default.max_iterations, default.confidence, default.seed) == (100, 2000, 0.99999, 0)
    assert default.thresholds == (0.5, 1.0, 2.0, 3.0)
    assert (default.frame, default.enlarge, default.divisible_by) == ("resized", False, 1)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_says_its_name_and_source(name: str) -> None:
    assert PROTOCOLS[name].name == name
    assert PROTOCOLS[name].source


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("benchmark", ["", "scannet1500", "homography"])
def test_every_protocol_survives_json(name: str, benchmark: str) -> None:
    protocol = make_protocol(name, benchmark=benchmark)
    assert Protocol(**json.loads(json.dumps(asdict(protocol)))) == protocol


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_is_told_in_words(name: str) -> None:
    protocol = PROTOCOLS[name]
    text = str(protocol)
    assert "\n" not in text
    for word in (
        name,
        str(protocol.long_side),
        str(protocol.max_keypoints),
        protocol.frame,
        protocol.estimator,
        str(protocol.max_iterations),
        f"seed {protocol.seed}",
        f"{protocol.confidence:g}",
        *(f"{threshold:g}" for threshold in protocol.thresholds),
    ):
        assert word in text


def test_words_of_the_default() -> None:
    assert str(Protocol()) == (
        "Protocol tiepoint: long side <= 1024 px, 2048 keypoints, all matches; thresholds and errors in pixels of the "
        "resized images; poselib, 100-2000 iterations, confidence 0.99999, seed 0, inlier thresholds 0.5, 1, 2, 3 px, "
        "each method at its best by the figure at 5."
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"short_side": 480, "enlarge": True}, "short side = 480 px,"),
        ({"exact_size": (480, 640)}, "images of 640 x 480 px,"),
        ({"divisible_by": 8}, "long side <= 1024 px in multiples of 8 px,"),
        ({"max_matches": 1024}, "the best 1024 matches"),
        ({"estimator": "opencv-magsac"}, "opencv-magsac, at most 2000 iterations"),
        ({"thresholds": (2.5,)}, "inlier thresholds 2.5 px, the same for all methods."),
    ],
)
def test_words_of_other_rules(changes: dict[str, Any], words: str) -> None:
    assert words in str(make_protocol(**changes))


def test_images_as_stored_are_a_rule_too() -> None:
    assert "images as stored" in str(Protocol(long_side=None))


def test_loftr_measures_megadepth_in_stored_pixels_and_homographies_in_resized_ones() -> None:
    pose = make_protocol("loftr", benchmark="megadepth1500", truth="pose")
    assert (pose.long_side, pose.divisible_by, pose.frame, pose.thresholds) == (840, 8, "stored", (0.5,))
    assert (pose.estimator, pose.max_iterations, pose.min_iterations) == ("opencv-ransac", 1000, 0)
    indoor = make_protocol("loftr", benchmark="scannet1500", truth="pose")
    assert (indoor.exact_size, indoor.long_side, indoor.frame) == ((480, 640), None, "resized")
    planes = make_protocol("loftr", benchmark="hpatches", truth="homography")
    assert (planes.short_side, planes.max_matches, planes.thresholds) == (480, 1024, (3.0,))
    assert planes == make_protocol("loftr", benchmark="multimodal", truth="homography")
    assert {protocol.name for protocol in (pose, indoor, planes)} == {"loftr"}


def test_the_default_is_the_same_for_all_benchmarks() -> None:
    assert (
        make_protocol(benchmark="scannet1500", truth="pose")
        == make_protocol(truth="homography")
        == Protocol(source=PROTOCOLS["tiepoint"].source)
    )


def test_changed_values_are_named_in_the_protocols_name() -> None:
    protocol = make_protocol("xfeat", thresholds=[1.0, 2.0], seed=3, max_keypoints=4096, frame=None)
    assert (protocol.thresholds, protocol.seed, protocol.frame) == ((1.0, 2.0), 3, "stored")
    assert protocol.name == "xfeat with other seed, thresholds"  # 4096 is what XFeat takes anyway
    assert make_protocol("xfeat", thresholds=[2.5]).name == "xfeat"


@pytest.mark.parametrize("name", PROTOCOLS)
def test_one_size_replaces_another(name: str) -> None:
    protocol = make_protocol(name, benchmark="scannet1500", short_side=600)
    assert (protocol.long_side, protocol.short_side, protocol.exact_size) == (None, 600, None)


def test_another_estimator_brings_its_own_least_number_of_iterations() -> None:
    assert make_protocol(estimator="opencv-ransac").min_iterations == 0
    assert make_protocol("loftr", estimator="poselib").min_iterations == 100
    assert make_protocol("loftr", estimator="opencv-magsac").min_iterations == 0
    assert make_protocol("loftr", estimator="poselib", min_iterations=7).min_iterations == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"long_side": 31}, "long_side is 31, expected 32 px or more"),
        ({"short_side": 0}, "short_side is 0, expected 32 px or more"),
        ({"exact_size": (480, 8)}, r"exact_size is \(480, 8\), expected 32 px or more"),
        ({"exact_size": (480,)}, r"exact_size is \(480,\), expected \(height, width\)"),
        ({"long_side": 640, "short_side": 480}, "long_side and short_side are given, expected at most one"),
        ({"divisible_by": 0}, "divisible_by is 0, expected 1 or more"),
        ({"max_keypoints": 0}, "max_keypoints is 0, expected 1 or more"),
        ({"max_matches": -1}, "max_matches is -1, expected 1 or more"),
        ({"interpolation": "cubic"}, "interpolation is 'cubic', expected one of area, linear"),
        ({"frame": "world"}, "frame is 'world', expected one of resized, stored"),
        ({"estimator": "magsac"}, "estimator is 'magsac', expected one of poselib, opencv-ransac, opencv-magsac"),
        ({"estimator": "opencv-ransac", "min_iterations": 5}, "min_iterations is 5, expected 0: opencv-ransac knows"),
        ({"thresholds": ()}, "thresholds are .*, expected one or more, each once"),
        ({"thresholds": (1.0, 1.0)}, "thresholds are .*, expected one or more, each once"),
        ({"thresholds": (1.0, 0.0)}, "threshold is 0.0, expected a positive number of pixels"),
        ({"thresholds": (float("nan"),)}, "threshold is nan, expected a positive number of pixels"),
        ({"max_iterations": 0}, "max_iterations is 0, expected 1 to 2147483647"),
        ({"confidence": 1.0}, "confidence is 1.0, expected a number between 0 and 1"),
        ({"seed": -1}, "seed is -1, expected 0 to 2147483647"),
    ],
)
def test_values_out_of_range_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_protocol(**changes)


def test_unknown_protocols_and_values_are_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="no protocol 'superglue', expected one of tiepoint, loftr, xfeat, glue-fact"):
        make_protocol("superglue")
    with pytest.raises(InputError, match=r"no value 'treshold', expected one of long_side, .*thresholds"):
        make_protocol(treshold=3)
    with pytest.raises(InputError, match="no value 'source'"):
        make_protocol(source="mine")


def test_a_protocol_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Protocol().seed = 1  # type: ignore[misc]
    assert all(field.init for field in fields(Protocol))
