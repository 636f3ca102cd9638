"""How well a trained model does: exact match, losses, mistakes, comparisons."""
