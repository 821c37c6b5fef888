"""How DeepSpeed finds a compiled ``async_io``, and how it finds ours instead.

DeepSpeed imports ``deepspeed.ops.aio.async_io_op`` when ``deepspeed/git_version_info_installed.py`` says that this op
was compiled, for the accelerator and the torch that are running; otherwise it compiles its own. Releases since 0.19.5
look for a second op, ``pin_memory``, in the same way, and open its file with ``ctypes`` unless it has none. So
``install`` writes those three files, and keeps what was there.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import pathlib
import sys
import types

_KEPT = ".before-tensorshelf"
_RECORD = "tensorshelf_installed.json"
_INFO = "git_version_info_installed.py"
_AIO_OP = "ops/aio/async_io_op.py"
_PIN_OP = "ops/pin_memory/pin_memory_op.py"

_AIO_TEXT = '''"""Written by `python -m tensorshelf.aio install`; `uninstall` takes it away."""
from tensorshelf.aio import aio_handle, aio_read, aio_write, deepspeed_memcpy  # noqa: F401
'''
_PIN_TEXT = '''"""Written by `python -m tensorshelf.aio install`; `uninstall` takes it away."""
from tensorshelf.aio import pin_handle  # noqa: F401

__file__ = None  # DeepSpeed opens the file of this module as a shared library, if it has one
'''


class InstallError(Exception):
    """Why nothing was changed."""


def _as_modules() -> tuple[types.ModuleType, types.ModuleType]:
    from tensorshelf import aio

    pin_memory = types.ModuleType("tensorshelf_pin_memory")
    pin_memory.pin_handle = aio.pin_handle
    return aio, pin_memory


def use_in_this_process() -> None:
    """Makes DeepSpeed use this module in the running process, and in those that it forks.

    To be called after ``import deepspeed`` and before anything that swaps. Processes started by spawn, forkserver or a
    launcher do not inherit it; ``python -m tensorshelf.aio install`` is for those.
    """
    from deepspeed.accelerator import get_accelerator
    from deepspeed.ops.op_builder.builder import OpBuilder

    aio, pin_memory = _as_modules()
    trees = [OpBuilder, type(get_accelerator().create_op_builder("AsyncIOBuilder"))]
    # DeepSpeed's own build scripts import a second copy of the builders.
    if "op_builder.builder" in sys.modules:
        trees.append(sys.modules["op_builder.builder"].OpBuilder)
    for tree in trees:
        tree._loaded_ops["async_io"] = aio
        tree._loaded_ops["pin_memory"] = pin_memory
    sys._deepspeed_pin_memory_op_module = pin_memory


def _running_torch() -> dict:
    import torch

    def major_minor(version: str | None) -> str:
        return ".".join(version.split(".")[:2]) if version else "0.0"

    nccl = "0.0"
    bf16 = False
    if torch.cuda.is_available():
        bf16 = torch.cuda.is_bf16_supported()
        if torch.version.cuda:
            nccl = ".".join(map(str, torch.cuda.nccl.version()[:2]))
    return {
        "version": major_minor(torch.__version__),
        "bf16_support": bf16,
        "cuda_version": major_minor(torch.version.cuda),
        "nccl_version": nccl,
        "hip_version": major_minor(torch.version.hip),
    }


@dataclasses.dataclass
class Installation:
    """A DeepSpeed on ``sys.path``, found without importing it."""

    folder: pathlib.Path
    version: str

    @classmethod
    def find(cls) -> Installation:
        spec = importlib.util.find_spec("deepspeed")
        if spec is None or not spec.submodule_search_locations:
            raise InstallError(f"no DeepSpeed in {sys.prefix}")
        try:
            version = importlib.metadata.version("deepspeed")
        except importlib.metadata.PackageNotFoundError:
            version = "unknown"
        return cls(pathlib.Path(next(iter(spec.submodule_search_locations))), version)

    def record(self) -> dict | None:
        """What the last ``install`` wrote down; None: it is not installed."""
        try:
            return json.loads((self.folder / _RECORD).read_text())
        except FileNotFoundError:
            return None

    def info(self) -> dict:
        values: dict = {}
        path = self.folder / _INFO
        if path.exists():
            exec(compile(path.read_text(), str(path), "exec"), {}, values)
        return values

    def has_pin_memory(self) -> bool:
        return (self.folder / "ops/op_builder/pin_memory.py").exists()

    def running_accelerator(self) -> str:
        from deepspeed.accelerator import get_accelerator

        return get_accelerator()._name

    def install(self, accelerator: str | None = None) -> list[pathlib.Path]:
        """Writes the files, all or none of them new, and returns their paths. Safe to repeat."""
        if self.record() is not None:
            self.uninstall()
        accelerator = accelerator or self.running_accelerator()
        torch_info = _running_torch()
        info = self._merged_info(accelerator, torch_info)
        texts = {_INFO: info, _AIO_OP: _AIO_TEXT}
        if self.has_pin_memory():
            texts[_PIN_OP] = _PIN_TEXT
        # An extension of the same name would be imported in place of a Python file.
        aside = [path for path in texts if (self.folder / path).exists()]
        for name in texts:
            if name != _INFO:
                stem = (self.folder / name).stem
                aside += [
                    str(path.relative_to(self.folder)) for path in (self.folder / name).parent.glob(f"{stem}.*.so")
                ]
        record = {
            "deepspeed": self.version,
            "torch": torch_info["version"],
            "accelerator": accelerator,
            "written": list(texts),
            "kept": aside,
        }
        # The record comes first: uninstall can mend whatever an interrupted install leaves behind.
        (self.folder / _RECORD).write_text(json.dumps(record, indent=2) + "\n")
        for name in aside:
            (self.folder / name).rename(self.folder / (name + _KEPT))
        for name, text in texts.items():
            (self.folder / name).write_text(text)
        return [self.folder / name for name in texts]

    def _merged_info(self, accelerator: str, torch_info: dict) -> str:
        old = self.info()
        ops = dict(old.get("installed_ops", {}))
        others = sorted(name for name, compiled in ops.items() if compiled and name not in ("async_io", "pin_memory"))
        same_torch = old.get("torch_info", {}).get("version") == torch_info["version"]
        if others and (old.get("accelerator_name") != accelerator or not same_torch):
            raise InstallError(
                f"this DeepSpeed has compiled ops ({', '.join(others)}) for the accelerator "
                f"{old.get('accelerator_name')!r} and torch {old.get('torch_info', {}).get('version')}, and "
                f"{accelerator!r} with torch {torch_info['version']} is running; both cannot be told to DeepSpeed"
            )
        ops["async_io"] = True
        if self.has_pin_memory():
            ops["pin_memory"] = True
        values = {
            "version": old.get("version", self.version),
            "git_hash": old.get("git_hash", "unknown"),
            "git_branch": old.get("git_branch", "unknown"),
            "installed_ops": ops,
            "accelerator_name": accelerator,
            "torch_info": old["torch_info"] if others else torch_info,
        }
        return "".join(f"{name}={value!r}\n" for name, value in values.items())

    def uninstall(self) -> list[pathlib.Path]:
        """Takes the files away, puts back what was there, and returns the paths that changed."""
        record = self.record()
        if record is None:
            return []
        changed = []
        for name in record["written"]:
            if name in record["kept"] and not (self.folder / (name + _KEPT)).exists():
                continue  # install was interrupted before it came here
            (self.folder / name).unlink(missing_ok=True)
            changed.append(self.folder / name)
        for name in record["kept"]:
            kept = self.folder / (name + _KEPT)
            if kept.exists():
                kept.rename(self.folder / name)
        (self.folder / _RECORD).unlink()
        return changed

    def problems(self, accelerator: str | None = None) -> list[str]:
        """Why this DeepSpeed would not use this module now; empty when it would."""
        record = self.record()
        if record is None:
            return ["not installed"]
        problems = [
            f"{self.folder / name} is not there or was changed"
            for name, text in ((_AIO_OP, _AIO_TEXT), (_PIN_OP, _PIN_TEXT))
            if name in record["written"] and self._text(name) != text
        ]
        info = self.info()
        if not info.get("installed_ops", {}).get("async_io"):
            problems.append(f"{self.folder / _INFO} does not name it")
        if record["deepspeed"] != self.version:
            problems.append(f"it was installed for DeepSpeed {record['deepspeed']}")
        running = _running_torch()["version"]
        if record["torch"] != running:
            problems.append(f"it was installed for torch {record['torch']}, this is {running}")
        accelerator = accelerator or self.running_accelerator()
        if info.get("accelerator_name") != accelerator:
            problems.append(f"it was installed for {info.get('accelerator_name')!r}, {accelerator!r} is running")
        return problems

    def _text(self, name: str) -> str | None:
        try:
            return (self.folder / name).read_text()
        except FileNotFoundError:
            return None
