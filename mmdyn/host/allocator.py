"""The allocator: the process keeps freed memory instead of returning it to the system.

glibc maps every block above 32 MiB separately and returns it when it is freed. So every training step on a CPU has a
page fault for every 4 KiB of its large activations. Kept blocks are reused. If sizes keep growing, fragmentation can
prevent this, and the process grows.
"""

import ctypes
import platform

# Parameters of mallopt(3), https://man7.org/linux/man-pages/man3/mallopt.3.html
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Make the allocator keep freed memory until the process ends.

    Returns:
        Whether the setting was applied: it requires glibc.
    """
    if platform.libc_ver()[0] != 'glibc':
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
