"""The programs that the kernel tests use."""

from tests.kernel.conftest import binaries

__all__ = ["binaries"]
