"""Questions that people ask of the results."""
