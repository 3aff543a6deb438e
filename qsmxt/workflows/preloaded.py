"""What the fork server imports once, so that workers start at once: the libraries, and what every unit needs.

The compiler's tables of types and functions, which every process makes before its first kernel, are made as well.
"""

from qsmxt.lean import STEPS, import_libraries

import_libraries(*STEPS)

from numba.core.registry import cpu_target  # noqa: E402  (only after the steps have chosen the folder of kernels)

cpu_target.typing_context.refresh()
cpu_target.target_context.refresh()
