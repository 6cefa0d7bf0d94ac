"""`jax.jit` for public functions: jax's own hides from type checkers what a function takes."""

from collections.abc import Callable
from typing import TypeVar, cast

import jax

Function = TypeVar("Function", bound=Callable)


def jitted(*static: str) -> Callable[[Function], Function]:
    """Compiles a function, whose type stays; the arguments of these names are static."""

    def compiled(function: Function) -> Function:
        return cast(Function, jax.jit(function, static_argnames=static))

    return compiled
