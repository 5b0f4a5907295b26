"""Float ONNX to float ONNX, one small rewrite a file; canonicalize.py runs them in order."""
