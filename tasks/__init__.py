"""One task per module: its problems, their text, the right answers."""
