"""Settings and their valid values. Nothing here imports torch."""
