"""Data sets, recipes, both training stages and their evaluation."""
