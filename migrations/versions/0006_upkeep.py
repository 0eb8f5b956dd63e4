"""Presence, partitions and retention."""

from alembic import op

from pgqueue import schema

revision = "pgqueue_0006"
down_revision = "pgqueue_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in schema.steps(5, 6):
        op.execute(statement)


def downgrade() -> None:
    for statement in schema.steps(6, 5):
        op.execute(statement)
