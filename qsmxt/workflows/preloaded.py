"""What the fork server imports once, so that workers start at once: the libraries, and what every unit needs."""

from qsmxt.lean import STEPS, import_libraries

import_libraries(*STEPS)
