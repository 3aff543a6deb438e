"""Static nipype interfaces: one for every kind of node.

Everything that determines a result is in the inputs of a node (see :mod:`qsmxt.interfaces.state`), so that a cached
result is never out of date.
"""

import os

# nipype asks a remote host for its newest version unless told not to; this must be settled before its first import.
os.environ["NO_ET"] = "1"
os.environ["NIPYPE_NO_ET"] = "1"
