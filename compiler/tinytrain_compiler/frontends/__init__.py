"""From a model file to the compiler's graph. One folder a file format: `onnx` is the only one so far."""
