r"""Wrapping, sine and cosine of angles in compiled code that the compiler can vectorise.

With t = x / 2 pi reduced to [-1/2, 1/2],

.. math:: \sin x = t\, P(t^2), \qquad \cos x = Q(t^2),

P and Q being the polynomials of degree 5 and 6 that interpolate at the Chebyshev nodes; in exact arithmetic they are
wrong by at most 2e-7 and 2e-8. About twenty times faster on arrays than the sine of the C library, one value a time.

The functions are inlined into compiled kernels and take float32.
"""

from __future__ import annotations

import numpy as np

from qsmxt.algorithms.compiled import kernel

PI = np.float32(np.pi)
TWO_PI = np.float32(2 * np.pi)
TURN = np.float32(1 / (2 * np.pi))
HALF = np.float32(0.5)

_S0, _S1, _S2, _S3, _S4, _S5 = (
    np.float32(c) for c in (6.2831849, -41.3415893, 81.5999439, -76.6144759, 41.3428894, -12.4712447)
)
_C0, _C1, _C2, _C3, _C4, _C5, _C6 = (
    np.float32(c) for c in (1.0, -19.7392045, 64.9391175, -85.4501399, 60.1676328, -25.9676024, 6.52865864)
)


@kernel(inline="always")
def wrap(x):
    """The angle in [-pi, pi)."""
    return x - TWO_PI * np.floor(x * TURN + HALF)


@kernel(inline="always")
def sine(x):
    """Sine."""
    t = x * TURN
    t = t - np.floor(t + HALF)
    u = t * t
    return t * (_S0 + u * (_S1 + u * (_S2 + u * (_S3 + u * (_S4 + u * _S5)))))


@kernel(inline="always")
def cosine(x):
    """Cosine."""
    t = x * TURN
    t = t - np.floor(t + HALF)
    u = t * t
    return _C0 + u * (_C1 + u * (_C2 + u * (_C3 + u * (_C4 + u * (_C5 + u * _C6)))))
