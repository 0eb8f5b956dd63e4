"""Who may do what."""

from alembic import op

from pgqueue import schema

revision = "pgqueue_0008"
down_revision = "pgqueue_0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in schema.steps(7, 8):
        op.execute(statement)


def downgrade() -> None:
    for statement in schema.steps(8, 7):
        op.execute(statement)
