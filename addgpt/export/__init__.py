"""Runs in the formats of other tools: Hugging Face, ONNX, lm-evaluation-harness."""
