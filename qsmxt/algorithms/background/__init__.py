"""Background field removal: the roster, one line a method."""

from qsmxt.algorithms.background.sharp import sharp as sharp
from qsmxt.algorithms.background.vsharp import vsharp as vsharp
