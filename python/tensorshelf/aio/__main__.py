"""``python -m tensorshelf.aio install|uninstall|status``: whether the DeepSpeed of this Python uses tensorshelf.aio."""

from __future__ import annotations

import argparse
import sys

from ._deepspeed import Installation, InstallError


def _install(installation: Installation, accelerator: str | None) -> int:
    for path in installation.install(accelerator):
        print(f"wrote {path}")
    print("Run it again after an upgrade of DeepSpeed or torch.")
    return 0


def _uninstall(installation: Installation, accelerator: str | None) -> int:
    changed = installation.uninstall()
    for path in changed:
        print(f"restored {path}" if path.exists() else f"removed {path}")
    if not changed:
        print("nothing was installed")
    return 0


def _status(installation: Installation, accelerator: str | None) -> int:
    print(f"DeepSpeed {installation.version} in {installation.folder}")
    record = installation.record()
    if record is not None:
        print(
            f"tensorshelf.aio was installed for DeepSpeed {record['deepspeed']}, torch {record['torch']}, "
            f"accelerator {record['accelerator']}"
        )
    problems = installation.problems(accelerator)
    for problem in problems:
        print(f"- {problem}")
    print("async_io is DeepSpeed's own" if problems else "async_io is tensorshelf.aio")
    return 1 if problems else 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tensorshelf.aio", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="install | uninstall | status")
    for name, function, help_text in (
        ("install", _install, "make DeepSpeed use tensorshelf.aio, in every process started from now on"),
        ("uninstall", _uninstall, "put back what was there before"),
        ("status", _status, "say which module is in use; exit status 1 unless it is tensorshelf.aio"),
    ):
        command = commands.add_parser(name, help=help_text, description=help_text)
        command.add_argument("--accelerator", help="DeepSpeed's name of it (cpu, cuda); asked of DeepSpeed by default")
        command.set_defaults(function=function)
    options = parser.parse_args(arguments)
    try:
        return options.function(Installation.find(), options.accelerator)
    except (InstallError, OSError) as error:
        print(f"tensorshelf.aio: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
