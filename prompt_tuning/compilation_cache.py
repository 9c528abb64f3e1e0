"""Keeps compiled programs in a folder, so that a second start does not compile them again.

The key of a program has the computation, JAX's version, the compiler options and the kind of
device in it, so several versions and machines can share the folder, and it may be deleted.
"""

import os

from prompt_tuning import paths

VARIABLE = "JAX_COMPILATION_CACHE_DIR"  # JAX's own


def default_folder() -> str:
    """$XDG_CACHE_HOME/prompt_tuning/compiled, with ~/.cache where that is not set."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "prompt_tuning", "compiled")


def use() -> None:
    """Has JAX keep what it compiles, and says where.

    The folder is JAX_COMPILATION_CACHE_DIR; if that is empty, nothing is kept. Programs that
    call back into Python are never kept.
    """
    folder = os.environ.get(VARIABLE)
    if folder is None:
        folder = default_folder()
    elif not folder:
        return
    if not paths.is_remote(folder):
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            print(
                f"compiled programs are not kept: {folder} cannot be made ({error.strerror}); set "
                f"{VARIABLE} to another folder, or to nothing"
            )
            return
    import jax

    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    print(f"compiled programs are kept in {folder}")
