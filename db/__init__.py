"""The truth: tables, claims, the object store. Knows no network."""
