"""TensorFlow Lite files, translated to ONNX in memory: what is behind the translation is shared with ONNX files."""
