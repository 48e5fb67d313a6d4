"""Processes of this package: started so that no file of a user takes the place of a module of the standard library.

Run as `python -P -m pytest_openenv_scale.core.own_process MODULE ARGUMENT…`, see `command`. Python puts the working
directory (without -P) and PYTHONPATH before its own library, so that a `queue.py` in a repository would be what every
process imports.
"""

import os
import sys

# Nothing is imported here that the standard library has to be found for: it may not be first yet.
_LIBRARY = os.__file__.rpartition(os.sep)[0]
_STANDARD_ENDINGS = (f"{os.sep}lib-dynload", f"{os.sep}python{sys.version_info.major}{sys.version_info.minor}.zip")


def command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this package as a process of its own."""
    return [sys.executable, "-P", "-m", __name__, module, *arguments]


def standard_library_first(path: list[str]) -> list[str]:
    """Return an import path with the standard library in front; all else, users' folders too, stays as it was."""
    standard = [entry for entry in path if _is_standard(entry)]
    return standard + [entry for entry in path if not _is_standard(entry)]


def import_user_module(name: str) -> object:
    """Import a module that a user named.

    It is the user's also where the standard library has one of that name that nothing has imported yet, as
    in `test.actions`; what that imports is the standard library's first.
    """
    from importlib import import_module
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    top = name.partition(".")[0]
    if top not in sys.modules and PathFinder.find_spec(top, [entry for entry in sys.path if _is_standard(entry)]):
        user_spec = PathFinder.find_spec(top, [entry for entry in sys.path if not _is_standard(entry)])
        if user_spec is not None and user_spec.loader is not None:
            module = sys.modules[top] = module_from_spec(user_spec)
            try:
                user_spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[top]
                raise
    return import_module(name)


def _is_standard(entry: str) -> bool:
    return entry == _LIBRARY or entry.endswith(_STANDARD_ENDINGS)


def main() -> None:
    """Run the module that the command line names, as `python -m` does."""
    import runpy

    sys.path[:] = standard_library_first(sys.path)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
