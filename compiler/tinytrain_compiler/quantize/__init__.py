"""From float to int8: calibration data, onnxruntime's static quantiser, and how well the two models agree."""
