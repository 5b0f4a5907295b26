"""Calibration data, and how pixels and floats become the int8 that a model takes."""
