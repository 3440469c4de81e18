"""Datasets and the LightningDataModules that serve them, one a file."""
