"""Goal: an installed DeepSpeed finds tensorshelf.aio by both routes, and is as before after uninstall.
Method: the commands as a user gives them, and what AsyncIOBuilder().load() returns in processes of its own."""

from __future__ import annotations

import pathlib
import sys

from conftest import run, run_python

LOAD = """
import sys, deepspeed
from deepspeed.ops.op_builder import AsyncIOBuilder
builder = AsyncIOBuilder()
module = builder.load()
print("AIO", module.aio_handle.__module__, deepspeed.ops.__compatible_ops__["async_io"])
if hasattr(sys, "_deepspeed_pin_memory_op_module"):
    print("PIN", sys._deepspeed_pin_memory_op_module.pin_handle.__module__)
"""


def command(name: str, check: bool = True):
    return run(sys.executable, "-m", "tensorshelf.aio", name, "--accelerator", "cpu", check=check)


def package() -> pathlib.Path:
    program = "import importlib.util as u; print(*u.find_spec('deepspeed').submodule_search_locations)"
    return pathlib.Path(run_python(program).split()[-1])


def contents(folder: pathlib.Path) -> dict:
    files = [*folder.glob("*.py*"), *folder.glob("*.json"), *folder.glob("ops/aio/*"), *folder.glob("ops/pin_memory/*")]
    return {path: path.read_bytes() for path in files if path.is_file()}


def test_install_status_uninstall():
    command("uninstall")
    folder = package()
    before = contents(folder)
    # A compiled op of DeepSpeed's own would be imported before ours.
    compiled = folder / "ops/aio/async_io_op.cpython-311-x86_64-linux-gnu.so"
    compiled.write_bytes(b"not really")
    try:
        assert "not installed" in command("status", check=False).stdout
        assert command("status", check=False).returncode == 1
        for _ in range(2):
            output = command("install").stdout
            assert str(folder / "ops/aio/async_io_op.py") in output
            assert str(folder / "git_version_info_installed.py") in output
            status = command("status")
            assert "async_io is tensorshelf.aio" in status.stdout
            assert "AIO tensorshelf.aio True" in run_python(LOAD)
        if (folder / "ops/pin_memory").exists():
            assert "PIN tensorshelf.aio" in run_python(LOAD)

        record = folder / "tensorshelf_installed.json"
        text = record.read_text()
        record.write_text(text.replace('"torch": "', '"torch": "1.'))
        status = command("status", check=False)
        assert status.returncode == 1
        assert "it was installed for torch 1." in status.stdout
        record.write_text(text)

        command("uninstall")
        assert compiled.read_bytes() == b"not really"
        assert "nothing was installed" in command("uninstall").stdout
    finally:
        compiled.unlink(missing_ok=True)
    assert contents(folder) == before


def test_compiled_ops_for_something_else_are_left_alone():
    info = package() / "git_version_info_installed.py"
    before = info.read_text()
    try:
        info.write_text(before.replace("'fused_adam': False", "'fused_adam': True").replace("'2.", "'1."))
        result = command("install", check=False)
        assert result.returncode == 2
        assert "fused_adam" in result.stderr
        assert not (package() / "ops/aio/async_io_op.py").exists()
    finally:
        info.write_text(before)


def test_in_one_process_without_any_file():
    output = run_python("import deepspeed, tensorshelf.aio; tensorshelf.aio.use_in_this_process()\n" + LOAD)
    assert "AIO tensorshelf.aio True" in output
    assert not (package() / "ops/aio/async_io_op.py").exists()


def test_native_pinning_shares_the_registry(installed):
    if not (package() / "ops/pin_memory").exists():
        # Releases before 0.19.5 have no such op.
        return
    output = run_python(
        """
import deepspeed, torch
from deepspeed.ops.op_builder import AsyncIOBuilder
from deepspeed.utils.pin_memory import NativePinnedMemory
pinning = NativePinnedMemory()
tensor = pinning.pin(torch.arange(10000.0))
handle = AsyncIOBuilder().load().aio_handle()
print("SHARED", handle.is_pinned(tensor), tensor.sum().item())
print("FREED", pinning.unpin(tensor), handle.is_pinned(tensor))
""",
        DS_PIN_MEMORY_BACKEND="native",
    )
    assert "SHARED True 49995000.0" in output
    assert "FREED True False" in output
