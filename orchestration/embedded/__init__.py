"""Postgres, Redis and the object store under the data folder, and the supervisor of everything there."""
