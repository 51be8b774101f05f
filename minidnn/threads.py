"""The one control of how many threads minidnn uses.

It acts on minidnn's own parallel regions and matrix products alone: Numba's and BLAS's
settings for other code in the process stay as they are. Results do not depend on it, bit
for bit; only the speed does. The start value is `NUMBA_NUM_THREADS` from the environment,
else the number of CPUs given to the process.

>>> from minidnn.threads import num_threads, set_num_threads
>>> set_num_threads(1)
>>> num_threads()
1
"""

from __future__ import annotations

from minidnn.kernels.jit import max_threads, num_threads, set_num_threads

__all__ = ["max_threads", "num_threads", "set_num_threads"]
