"""`pulse doctor`: what is wrong with a whole project, and what mends each of it. It only looks."""

from console.doctor.examine import COMMAND

__all__ = ["COMMAND"]
