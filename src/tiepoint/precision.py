"""Half precision for the network, not for where things are."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lightning.pytorch.plugins.precision import HalfPrecision


class HalfWeights(HalfPrecision):
    """Lightning's precision of weights, bf16-true and 16-true, that leaves the batch alone.

    Lightning's own rounds every number of a batch and of a step: at 256 pixels bfloat16 tells only every second pixel
    from the next. Extractors take images of any precision and compute in that of their weights.
    """

    def convert_input(self, data: Any) -> Any:
        """The batch as it is."""
        return data

    def forward_context(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """New tensors in full precision."""
        return nullcontext()
