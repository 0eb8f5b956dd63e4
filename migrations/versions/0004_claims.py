"""The way into running, and the lease that guards it."""

from alembic import op

from pgqueue import schema

revision = "pgqueue_0004"
down_revision = "pgqueue_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in schema.steps(3, 4):
        op.execute(statement)


def downgrade() -> None:
    for statement in schema.steps(4, 3):
        op.execute(statement)
