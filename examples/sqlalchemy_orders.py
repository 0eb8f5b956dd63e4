"""An order and the job that confirms it, in one SQLAlchemy transaction.

python sqlalchemy_orders.py      places an order, prints the id of its job
pgqueue worker sqlalchemy_orders  confirms it
"""

import os

from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import pgqueue

tasks = pgqueue.Tasks()


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]
    confirmed: Mapped[bool] = mapped_column(default=False)


@tasks.task
def confirm(job: pgqueue.Job, order_id: int) -> None:
    # The update and the job's completion commit together: a crash leaves both or neither.
    with job.transaction() as connection:
        connection.execute("update orders set confirmed = true where id = %s", [order_id])


def place_order(session: Session, item: str) -> pgqueue.JobId:
    order = Order(item=item)
    session.add(order)
    session.flush()
    return pgqueue.Queue(session).enqueue(confirm, order_id=order.id)


def main() -> None:
    engine = create_engine(os.environ["PGQUEUE_DSN"].replace("postgresql://", "postgresql+psycopg://"))
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        print(place_order(session, "teapot"))


if __name__ == "__main__":
    main()
