"""Starts JAX for a command: settings from outside that would change numbers, cache, devices."""

import os
import sys

from vamp_jax.errors import UsageError, first_line

# A run is a function of its config: what JAX's environment variables could change in its numbers.
SETTINGS = {
    "jax_enable_x64": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_high_dynamic_range_gumbel": False,
    "jax_disable_jit": False,
    "jax_disable_most_optimizations": False,
}


def start() -> None:
    """Imports JAX, fixes the settings, turns the compilation cache on, and starts the devices.

    Raises:
      UsageError: when the environment asks JAX for what it does not have.
    """
    try:
        import jax
    except ValueError as error:  # of a variable's value
        raise UsageError(f"JAX cannot start: {first_line(error)}.") from None
    changed = []
    for name, value in SETTINGS.items():
        if getattr(jax.config, name, value) != value:
            changed.append(name.upper())
            jax.config.update(name, value)
    if changed:
        print(
            f"Note: {', '.join(changed)} of the environment changes nothing here, since a run's "
            "numbers depend on its config alone.",
            file=sys.stderr,
            flush=True,
        )
    from vamp_jax.process import compilation_cache

    compilation_cache.enable()
    check_devices()


def check_devices() -> None:
    """Raises a UsageError when JAX has no devices to run on."""
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX has both for a platform that it lacks
        asked = os.environ.get("JAX_PLATFORMS")
        cure = "see to its drivers, or set JAX_PLATFORMS=cpu"
        if asked:
            cure = f"JAX_PLATFORMS is {asked!r}; unset it, or install what it names"
        reason = f" ({first_line(error)})" if str(error).strip() else ""
        raise UsageError(f"JAX cannot start its devices{reason}: {cure}.") from None
