"""The allocator: freed blocks stay with the process instead of going back to the system.

glibc maps every block above 32 MiB again and returns it when it is freed, so a training step on a CPU takes a page
fault for every 4 KiB of its large activations, every time. Kept blocks are used again; where sizes keep growing between
blocks that stay, they are not, and the process grows.
"""

import ctypes
import platform

# Parameters of mallopt(3), https://man7.org/linux/man-pages/man3/mallopt.3.html
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, until it ends.

    Returns:
        Whether the allocator could be told: it can where the C library is glibc.
    """
    if platform.libc_ver()[0] != 'glibc':
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
