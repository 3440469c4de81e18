"""OpenCV's SIFT, for a baseline and for peace of mind."""

import cv2
import numpy as np

from tiepoint.images import UInt8
from tiepoint.runtime.matcher import Found, timed
from tiepoint.types import Float32


class Sift:
    """RootSIFT (Arandjelović and Zisserman, CVPR 2012) with mutual nearest neighbours.

    Args:
        max_keypoints: keypoints an image, those of the strongest response.
    """

    def __init__(self, max_keypoints: int) -> None:
        self._detector = cv2.SIFT_create(max_keypoints)  # type: ignore[attr-defined]
        self._max_keypoints = max_keypoints
        self.facts = {"backend": f"opencv {cv2.__version__}", "device": "cpu", "max_keypoints": str(max_keypoints)}

    def match(self, image0: UInt8, image1: UInt8) -> Found:
        """See `Backend.match`; the score is the cosine of the descriptors."""
        seconds: dict[str, float] = {}
        with timed(seconds, "extract"):
            points0, descriptors0 = self._extract(image0)
            points1, descriptors1 = self._extract(image1)
        if not len(points0) or not len(points1):
            return Found(points0[:0], points1[:0], np.zeros(0, np.float32), points0, points1, seconds)
        with timed(seconds, "match"):
            cosines = descriptors0 @ descriptors1.T
            nearest1, nearest0 = cosines.argmax(1), cosines.argmax(0)
            mutual = np.flatnonzero(nearest0[nearest1] == np.arange(len(points0)))
            partner = nearest1[mutual]
            scores = cosines[mutual, partner].clip(0, 1)
        return Found(points0[mutual], points1[partner], scores, points0, points1, seconds)

    def _extract(self, image: UInt8) -> tuple[Float32, Float32]:
        """Keypoints (N, 2) and root descriptors (N, 128) of unit length."""
        found, described = self._detector.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
        if described is None:
            return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32)
        # ties at the last response let OpenCV return a few more than asked for
        points = np.array([keypoint.pt for keypoint in found[: self._max_keypoints]], np.float32)
        described = described[: self._max_keypoints]
        total = np.maximum(described.sum(1, keepdims=True), 1e-6)
        return points, np.sqrt(described / total).astype(np.float32)
