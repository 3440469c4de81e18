"""Measuring matchers: readers of public benchmarks, error metrics and the protocol."""
