"""The contract for reading."""

from alembic import op

from pgqueue import schema

revision = "pgqueue_0007"
down_revision = "pgqueue_0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in schema.steps(6, 7):
        op.execute(statement)


def downgrade() -> None:
    for statement in schema.steps(7, 6):
        op.execute(statement)
