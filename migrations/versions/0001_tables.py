"""Tables and their checks."""

from alembic import op

from pgqueue import schema

revision = "pgqueue_0001"
down_revision = None
branch_labels = ("pgqueue",)
depends_on = None


def upgrade() -> None:
    for statement in schema.steps(0, 1):
        op.execute(statement)


def downgrade() -> None:
    for statement in schema.steps(1, 0):
        op.execute(statement)
