"""Alembic migrations; the URL is handed in, never read from the environment."""
