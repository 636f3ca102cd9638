"""Runs served on this machine: as an endpoint that other programs ask."""
