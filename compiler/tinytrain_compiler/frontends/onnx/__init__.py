"""ONNX files, float or quantised (QDQ): read, check, bring into canonical form, quantise, import."""
