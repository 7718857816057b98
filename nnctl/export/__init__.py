"""A trained network for other programs: ONNX, one Python file, one web page; each checked."""
