"""One module a stage, and what happens when it fails."""
