"""The second half of a benchmark run: cached matches against the truth, spread over the cores."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
from tqdm import tqdm

from tiepoint.evaluation.cache import Cached, read_cached
from tiepoint.evaluation.environment import thread_variables
from tiepoint.evaluation.pairs import Pair
from tiepoint.evaluation.protocol import Protocol
from tiepoint.evaluation.results import PairResult
from tiepoint.evaluation.scoring import score_pair

LEAST_TASKS = 32  # a process that scores fewer pairs than this takes longer to start than it saves


@dataclass(frozen=True, slots=True)
class Task:
    """A pair's matches that are to be scored.

    Attributes:
        pair: with its truth.
        file: of the matches.
        folder: of the run.
        protocol: thresholds, estimator and frame.
        limits: of the benchmark's figures.
    """

    pair: Pair
    file: Path
    folder: Path
    protocol: Protocol
    limits: tuple[float, ...]


def score_all(tasks: Sequence[Task], workers: int) -> list[PairResult]:
    """Score cached matches, spread over processes.

    Args:
        tasks: pairs with their files.
        workers: processes at most; with 1, or few tasks, this very process does it.

    Returns:
        The results in the order of the tasks, the same for any number of workers but for `seconds`.
    """
    workers = min(workers, -(-len(tasks) // LEAST_TASKS))
    if workers <= 1:
        return [score_task(task) for task in tqdm(tasks, desc="scoring", unit="pair")]
    # one thread each, for the processes are as many as the cores
    with processes(workers, threads=1) as pool:
        results = pool.map(score_task, tasks, chunksize=max(1, min(16, len(tasks) // (4 * workers))))
        return list(tqdm(results, total=len(tasks), desc="scoring", unit="pair"))


def score_task(task: Task) -> PairResult:
    """What one method did on one pair, from its cached matches."""
    file = task.file.relative_to(task.folder).as_posix()
    return pair_result(task.pair, read_cached(task.file), file=file, protocol=task.protocol, limits=task.limits)


def pair_result(pair: Pair, cached: Cached, *, file: str, protocol: Protocol, limits: Sequence[float]) -> PairResult:
    """What one method did on one pair.

    Args:
        pair: with its truth.
        cached: what the method found.
        file: of the matches, relative to the run's folder.
        protocol: thresholds, estimator and frame.
        limits: of the benchmark's figures.
    """
    keypoints0, keypoints1 = cached.keypoints0, cached.keypoints1
    score = score_pair(
        pair,
        cached.matches,
        keypoints0=keypoints0,
        keypoints1=keypoints1,
        scale0=cached.scale0,
        scale1=cached.scale1,
        protocol=protocol,
        limits=limits,
    )
    return PairResult(
        name=pair.name,
        path0=str(pair.path0),
        path1=str(pair.path1),
        size0=cached.matches.size0,
        size1=cached.matches.size1,
        matches=score.matches,
        keypoints=None if keypoints0 is None or keypoints1 is None else (len(keypoints0), len(keypoints1)),
        errors=score.errors,
        inliers=score.inliers,
        within=score.within,
        mma=score.mma,
        precision=score.precision,
        repeatability=score.repeatability,
        seconds={**cached.seconds, "estimate": score.seconds},
        matches_file=file,
    )


@contextmanager
def processes(count: int, *, threads: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that start afresh, for a fork would inherit locks but not the threads that hold them.

    Args:
        count: how many.
        threads: of each.

    Yields:
        The pool; when it is left, what has not begun is not done any more.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start, initargs=(threads,))
    try:
        with thread_variables(threads):
            yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _start(threads: int) -> None:
    # Ctrl-C reaches all processes of a terminal; whoever started this one ends it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot end its workers, which would wait for work for ever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
