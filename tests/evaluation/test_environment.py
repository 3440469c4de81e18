"""Threads are pinned and put back; versions and processor are told."""

import os
import sys

import cv2
import numpy as np
import pytest
import torch

from tiepoint.evaluation.environment import VARIABLES, environment, pinned_threads, thread_variables


def test_threads_are_pinned_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    cv2.setNumThreads(4)
    torch.set_num_threads(2)
    with pinned_threads(3):
        assert [os.environ[name] for name in VARIABLES] == ["3"] * len(VARIABLES)
        assert (cv2.getNumThreads(), torch.get_num_threads()) == (3, 3)
        with thread_variables(1):
            assert os.environ["MKL_NUM_THREADS"] == "1"
            assert cv2.getNumThreads() == 3
        assert os.environ["MKL_NUM_THREADS"] == "3"
    assert (os.environ["OMP_NUM_THREADS"], "MKL_NUM_THREADS" in os.environ) == ("7", False)
    assert (cv2.getNumThreads(), torch.get_num_threads()) == (4, 2)


def test_they_are_put_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with pytest.raises(KeyboardInterrupt), pinned_threads(1):
        raise KeyboardInterrupt
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_tells_what_figures_depend_on() -> None:
    told = environment(3)
    assert told["versions"]["numpy"] == np.__version__
    assert told["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"tiepoint", "opencv-python-headless", "onnxruntime", "poselib"} <= set(told["versions"])
    assert told["processor"]
    assert (told["threads"], "OMP_NUM_THREADS=3" in told["pinned"]) == (3, True)
