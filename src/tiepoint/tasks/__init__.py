"""LightningModules, one task a file: they average, log and step what `ops` computes."""
