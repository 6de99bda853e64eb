"""Whom we call: one adapter a file, named <technology>_<what>."""
