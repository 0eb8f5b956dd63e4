"""${message}."""

from alembic import op

from pgqueue import schema

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    for statement in schema.steps(FROM, TO):
        op.execute(statement)


def downgrade() -> None:
    for statement in schema.steps(TO, FROM):
        op.execute(statement)
