"""Runs served on this machine: the calculator as a web page, and an endpoint for other programs.

Needs the extra `web`.
"""
