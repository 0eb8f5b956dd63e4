import pgqueue

tasks = pgqueue.Tasks()


@tasks.task
def add(x: int, y: int) -> int:
    return x + y
