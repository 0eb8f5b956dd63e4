"""Finds the Tasks that `pgqueue worker MODULE[:TASKS]` names."""

import importlib
import sys
from pathlib import Path

from ..errors import WorkerMisconfigured
from ..tasks import Tasks


def load(target: str) -> Tasks:
    """Imports the module from the current folder or PYTHONPATH. Raises WorkerMisconfigured."""
    module_name, _, attribute = target.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise WorkerMisconfigured(
                f'there is no module "{module_name}" in {here} or on PYTHONPATH: name a module that holds your Tasks,'
                " without .py"
            ) from None
        raise WorkerMisconfigured(
            f'module "{module_name}" does not import, {error}: install what it needs, beside pgqueue'
        ) from error
    except Exception as error:
        raise WorkerMisconfigured(
            f'module "{module_name}" does not import, {type(error).__name__}: {error}: mend it and start again'
        ) from error
    found = {name: value for name, value in vars(module).items() if isinstance(value, Tasks)}
    if attribute:
        if attribute not in found:
            raise WorkerMisconfigured(
                f'module "{module_name}" has no Tasks named "{attribute}": it has {", ".join(found) or "none"}'
            )
        return found[attribute]
    if len({id(tasks) for tasks in found.values()}) != 1:
        raise WorkerMisconfigured(
            f'module "{module_name}" has several Tasks: choose one, such as {module_name}:{next(iter(found))}'
            if found
            else f'module "{module_name}" has no Tasks: add tasks = pgqueue.Tasks() and decorate with @tasks.task'
        )
    tasks = next(iter(found.values()))
    if not len(tasks):
        raise WorkerMisconfigured(f'the Tasks of module "{module_name}" are empty: decorate functions with @tasks.task')
    return tasks
