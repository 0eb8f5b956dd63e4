"""Moves out of running, fenced by (id, attempt)."""

from alembic import op

from pgqueue import schema

revision = "pgqueue_0003"
down_revision = "pgqueue_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in schema.steps(2, 3):
        op.execute(statement)


def downgrade() -> None:
    for statement in schema.steps(3, 2):
        op.execute(statement)
