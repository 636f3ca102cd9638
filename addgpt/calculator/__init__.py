"""Typed expressions, each operation of which a trained model computes."""
