"""Adapters to what the edge calls: one per file, named <technology>_<what>."""
