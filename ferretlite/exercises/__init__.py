"""Exercises of the lessons: `check`, `hint`, `get_inputs` and `set_student` for notebooks."""

__all__ = ["check", "get_inputs", "hint", "set_student"]


def __getattr__(name):
    "Import the checks, and with them torch, when one of the names is first used."
    if name not in __all__:
        raise AttributeError(f"module 'ferretlite.exercises' has no attribute {name!r}")
    from . import checks

    return getattr(checks, name)
