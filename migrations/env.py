"""Alembic's entry: the connection comes from pgqueue.schema, the version table lives beside our tables."""

from alembic import context
from sqlalchemy import Connection, text

# "pgqueue migrate", in ASCII: one key for all migrations of one database.
MIGRATION_LOCK = 0x7067_6D69_6772


def configure(**options: object) -> None:
    context.configure(
        target_metadata=None,
        version_table="schema_revision",
        version_table_schema="pgqueue",
        **options,  # type: ignore[arg-type]
    )


def offline() -> None:
    """Prints the SQL. paramstyle named, or every % in our functions would come out doubled."""
    configure(url="postgresql+psycopg://", literal_binds=True, dialect_opts={"paramstyle": "named"})
    context.config.output_buffer.write(
        "do $$ begin if to_regnamespace('pgqueue') is null then create schema pgqueue; end if; end $$;\n\n"
    )
    with context.begin_transaction():
        context.run_migrations()


def online(connection: Connection) -> None:
    """Everything in one transaction, behind one lock that goes with it, so that it works through PgBouncer too."""
    with connection.begin():
        connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        if connection.execute(text("select to_regnamespace('pgqueue') is null")).scalar_one():
            connection.execute(text("create schema pgqueue"))
        configure(connection=connection)
        context.run_migrations()


if context.is_offline_mode():
    offline()
else:
    online(context.config.attributes["connection"])
