"""The worker: claims jobs, runs their handlers, settles their outcomes."""

from .options import Options
from .run import run

__all__ = ["Options", "run"]
