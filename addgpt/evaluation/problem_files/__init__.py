"""Anybody's problems: read from files as people write them, and scored, group by group."""
