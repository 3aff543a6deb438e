"""What the fork server imports once, so that workers start at once: the libraries, and what every unit needs.

What kernels allocate with is made as well.
"""

from qsmxt.lean import STEPS, import_libraries

#: The stages of the default chain with what they need, masks, and what figures and metrics are made with.
CHAIN = (
    "threadpoolctl",
    "numba.np.arrayobj",
    "numba.cpython.numbers",
    "qsmxt.algorithms.field",
    "qsmxt.algorithms.masking.build",
    "qsmxt.algorithms.inversion",
    "qsmxt.algorithms.referencing",
    "qsmxt.algorithms.statistics.quality",
    "qsmxt.bids.provenance",
    "qsmxt.external.brain_extraction",
    "qsmxt.reports.figures",
    "qsmxt.reports.volumes",
    "qsmxt.workflows.plugin",
    "scipy.ndimage",
)

import_libraries(*STEPS, *CHAIN)

from numba.core.registry import cpu_target  # noqa: E402  (only after the steps have chosen the folder of kernels)
from numba.core.runtime import rtsys  # noqa: E402

rtsys.initialize(cpu_target.target_context)
