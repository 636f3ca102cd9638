"""Building blocks that the arithmetic tasks share."""
