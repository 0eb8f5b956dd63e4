"""Ways in, and the gate that wakes sleepers."""

from alembic import op

from pgqueue import schema

revision = "pgqueue_0002"
down_revision = "pgqueue_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in schema.steps(1, 2):
        op.execute(statement)


def downgrade() -> None:
    for statement in schema.steps(2, 1):
        op.execute(statement)
