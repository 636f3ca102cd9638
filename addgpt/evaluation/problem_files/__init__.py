"""Anybody's problems: read from files as people have them, and scored, group by group."""
