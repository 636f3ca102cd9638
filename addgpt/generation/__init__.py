"""Writing with a trained model: decoding, verifying a whole draft, sampling text."""
