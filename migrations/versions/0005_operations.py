"""What operators do."""

from alembic import op

from pgqueue import schema

revision = "pgqueue_0005"
down_revision = "pgqueue_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in schema.steps(4, 5):
        op.execute(statement)


def downgrade() -> None:
    for statement in schema.steps(5, 4):
        op.execute(statement)
