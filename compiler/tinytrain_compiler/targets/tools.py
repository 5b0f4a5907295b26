"""Programs of the system that builds and emulation call, and how to install them."""

from __future__ import annotations

import shutil

from ..errors import ToolMissingError

_PACKAGES = {
    "arm-none-eabi-gcc": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "arm-none-eabi-objcopy": "binutils-arm-none-eabi",
    "arm-none-eabi-objdump": "binutils-arm-none-eabi",
    "qemu-system-arm": "qemu-system-arm",
    "cc": "gcc libc6-dev",
    "gcc": "gcc libc6-dev",
    "clang": "clang",
    "cmake": "cmake make",
}


def install_line(tool: str) -> str:
    """The command that installs ``tool`` on Debian and Ubuntu."""
    return f"sudo apt-get install -y {_PACKAGES.get(tool, tool)}"


def require_tool(tool: str) -> str:
    """Path of ``tool``; ToolMissingError with the install line where it is not on PATH."""
    path = shutil.which(tool)
    if path is None:
        raise ToolMissingError(f"'{tool}' is not installed. On Debian or Ubuntu: {install_line(tool)}")
    return path
