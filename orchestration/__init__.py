"""Composition root: the only package that reads the environment."""
