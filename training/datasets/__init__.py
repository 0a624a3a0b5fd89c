"""Readers of image and report collections, and the maker of drawn ones."""
