"""Accuracy of matchers side by side on public pairs: `tiepoint benchmark`, with the methods that the docs show.

python benchmarks/accuracy.py --data DATA [--weights xfeat=FILE,...] [-o FOLDER] [other options of tiepoint benchmark]

Without weights it measures the embedded network beside RootSIFT and ORB; with them every method that they are for too.
"""

import sys
from collections.abc import Sequence
from itertools import pairwise

from tiepoint.cli import main as run_tiepoint

METHODS = ("default", "sift", "orb")


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; the exit code is that of `tiepoint benchmark`."""
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    given = next((after for option, after in pairwise(argv) if option == "--weights"), "")
    peers = dict.fromkeys(word.partition("=")[0] for word in given.split(",") if "=" in word)
    return run_tiepoint(["benchmark", *METHODS, *peers, *argv])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
