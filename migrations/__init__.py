"""Alembic migrations; `node.schema` runs them."""
