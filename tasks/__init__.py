"""One task per module: what is asked, how it is written, what the right answer is."""
