"""OpenCV's ORB: the binary baseline."""

from typing import Any

import cv2
import numpy as np

from tiepoint.images import UInt8
from tiepoint.runtime.matcher import Found, timed
from tiepoint.types import Float32

BITS = 256  # of a descriptor


class Orb:
    """ORB (Rublee et al., ICCV 2011) with mutual nearest neighbours in Hamming distance.

    Args:
        max_keypoints: keypoints an image, those of the strongest response.
    """

    def __init__(self, max_keypoints: int) -> None:
        self._detector = cv2.ORB.create(max_keypoints)
        self._matcher = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True)
        self._max_keypoints = max_keypoints
        self.facts = {"backend": f"opencv {cv2.__version__}", "device": "cpu", "max_keypoints": str(max_keypoints)}

    def match(self, image0: UInt8, image1: UInt8) -> Found:
        """See `Backend.match`; the score is 1 - distance / 256, the share of equal bits."""
        seconds: dict[str, float] = {}
        with timed(seconds, "extract"):
            points0, codes0 = self._extract(image0)
            points1, codes1 = self._extract(image1)
        with timed(seconds, "match"):
            # OpenCV refuses an empty set of descriptors
            found = self._matcher.match(codes0, codes1) if len(codes0) and len(codes1) else ()
            matched0 = points0[[match.queryIdx for match in found]]
            matched1 = points1[[match.trainIdx for match in found]]
            scores = 1 - np.array([match.distance / BITS for match in found], np.float32)
        return Found(matched0, matched1, scores, points0, points1, seconds)

    def _extract(self, image: UInt8) -> tuple[Float32, Any]:
        """Keypoints (N, 2) and descriptors (N, 32) of eight bits a byte."""
        found, codes = self._detector.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
        points = np.array([keypoint.pt for keypoint in found], np.float32).reshape(-1, 2)
        codes = np.zeros((0, BITS // 8), np.uint8) if codes is None else codes
        return points[: self._max_keypoints], codes[: self._max_keypoints]
