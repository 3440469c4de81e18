"""How many threads a runtime may take."""

import os


def thread_count() -> int | None:
    """The threads that this process was told to take; None leaves it to the runtime, which knows the cores.

    `OMP_NUM_THREADS` counts for all of them: who pins the threads of a process means every pool in it. A process that
    is bound to some of the cores (taskset, a container's cpuset) takes as many threads as those: ONNX Runtime counts
    the machine's, and binds its threads to cores that the process was kept from.
    """
    told = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # OpenMP takes a list, one number a level
    if told.isdecimal() and int(told):
        return int(told)
    if hasattr(os, "sched_getaffinity"):
        usable = len(os.sched_getaffinity(0))
        if usable < (os.cpu_count() or usable):
            return usable
    return None
