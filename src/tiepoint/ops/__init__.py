"""Pure functions on tensors: warps, photometric change, sampling, supervision, losses, metrics."""
