"""Alembic migrations, applied by `stores.migrate`."""
