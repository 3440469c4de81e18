"""Which entries of one state dict go where in a network of another maker: key by key."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

# LightGlue's first release numbered its blocks the other way about
_RENAMINGS = ((re.compile(r"\b(self|cross)_attn\.(\d+)\."), r"transformers.\2.\1_attn."),)
_STATISTICS = (".running_mean", ".running_var")

State = Literal["matched", "renamed", "missing", "other shape", "left over", "computed"]


@dataclass(frozen=True)
class Entry:
    """What became of one entry.

    Attributes:
        state: "matched" by the same name; "renamed"; "missing" in the file; of "other shape" there; "left over" of
            the file; or "computed", which either side works out by itself.
        name: in the network; None for what is left over.
        source: in the file; None for what it does not hold.
        shape: in the network, or of what is left over.
        found: in the file, where that is another one.
    """

    state: State
    name: str | None
    source: str | None
    shape: tuple[int, ...]
    found: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Fit:
    """How a state dict fits a network.

    Attributes:
        prefix: of the network's entries in the file.
        entries: first the network's, then those that are left over.
        optional: prefixes of the parts that the network's class can do without.
    """

    prefix: str
    entries: list[Entry]
    optional: tuple[str, ...] = ()

    def of(self, *states: State) -> list[Entry]:
        """The entries in one of these states."""
        return [entry for entry in self.entries if entry.state in states]

    def faults(self) -> list[Entry]:
        """What keeps the network from being the one of the file; beside its prefix, a file may hold anything."""
        missing = [entry for entry in self.of("missing") if not str(entry.name).startswith(self.optional)]
        beside = [entry for entry in self.of("left over") if str(entry.source).startswith(self.prefix)]
        return [*missing, *self.of("other shape"), *beside]

    def summary(self) -> str:
        """How many entries are in each state."""
        states: tuple[State, ...] = ("matched", "renamed", "missing", "other shape", "left over")
        return ", ".join(f"{len(self.of(state))} {state}" for state in states)


def fit(network: nn.Module, tensors: Mapping[str, Tensor], *, optional: tuple[str, ...] = ()) -> Fit:
    """Find the entries of a network in a state dict, whatever prefix they have there.

    Args:
        network: with any weights.
        tensors: the file's.
        optional: prefixes of parts that may be missing as a whole.
    """
    own = network.state_dict()
    learned = {name for name, _ in network.named_parameters()} | {name for name in own if name.endswith(_STATISTICS)}
    # as they are called here; a name that two share is nobody's
    named = {_renamed(name): name for name in tensors}
    prefix, dropped = _best_prefix(named, [name for name in own if name in learned])
    entries, used = [], set()
    for name, value in own.items():
        source = named.get(prefix + name.removeprefix(dropped))
        shape = tuple(value.shape)
        if source is None:
            entries.append(Entry("missing" if name in learned else "computed", name, None, shape))
            continue
        used.add(source)
        found = tuple(tensors[source].shape)
        if found != shape and name in learned:
            entries.append(Entry("other shape", name, source, shape, found))
        else:
            same: State = "matched" if source == name else "renamed"
            entries.append(Entry(same if found == shape else "computed", name, source, shape))
    computed = {prefix + name.removeprefix(dropped) for name, _ in network.named_buffers()}
    for name, value in tensors.items():
        if name not in used:
            state: State = "computed" if _renamed(name) in computed else "left over"
            entries.append(Entry(state, None, name, tuple(value.shape)))
    return Fit(prefix, entries, optional)


def taken(result: Fit, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the network as far as the file holds it."""
    held = result.of("matched", "renamed")
    return {entry.name: tensors[entry.source] for entry in held if entry.name and entry.source}


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMINGS:
        name = pattern.sub(replacement, name)
    return name


def _best_prefix(named: Mapping[str, str], wanted: list[str]) -> tuple[str, str]:
    """With which prefix a file holds most of the entries, and which prefix of the entries themselves it leaves out."""
    tops = {name.split(".")[0] for name in wanted}
    own = ["", f"{tops.pop()}."] if len(tops) == 1 else [""]
    theirs = {"".join(f"{part}." for part in name.split(".")[:depth]) for name in named for depth in range(4)}
    ways = [(prefix, dropped) for dropped in own for prefix in sorted(theirs, key=lambda each: (len(each), each))]
    # the first of the best: the shortest
    return max(ways, key=lambda way: sum(way[0] + name.removeprefix(way[1]) in named for name in wanted))
