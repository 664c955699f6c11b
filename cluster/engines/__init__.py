"""Engines: what a replica of a model pool hosts. One file each: vllm, onnx, fake."""
