"""Background field removal: the roster, one line a method."""

from qsmxt.algorithms.background.harperella import harperella as harperella
from qsmxt.algorithms.background.iharperella import iharperella as iharperella
from qsmxt.algorithms.background.ismv import ismv as ismv
from qsmxt.algorithms.background.lbv import lbv as lbv
from qsmxt.algorithms.background.msmv import msmv as msmv
from qsmxt.algorithms.background.pdf import pdf as pdf
from qsmxt.algorithms.background.resharp import resharp as resharp
from qsmxt.algorithms.background.sharp import sharp as sharp
from qsmxt.algorithms.background.vsharp import vsharp as vsharp
