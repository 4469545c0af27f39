"""Tell glibc's malloc to keep the buffers that TLS connections take and give back all the time.

By default a buffer above 128 KiB is mapped and unmapped each time, which costs two page faults a
request: 47 instead of 17 microseconds of CPU with 16 TLS connections (measured with uvloop).
"""

from __future__ import annotations

import ctypes
import platform

MMAP_THRESHOLD_BYTES = 32 << 20
TRIM_THRESHOLD_BYTES = 128 << 20
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
"""Numbers from glibc's malloc.h; see mallopt(3)."""


def tune_malloc() -> bool:
    """Set both thresholds for this process. False where there is no glibc: nothing is changed."""
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    mallopt.restype = ctypes.c_int
    return bool(mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)) and bool(
        mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
    )
