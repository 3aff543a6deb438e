r"""Background field removal: the roster, one line a method.

Measured on a digital head at the default parameters, given the true total field (HARPERELLA: noise-free phase at an
echo time of 0.5 ms; at 4 to 28 ms and 7 T it is 61 %). NRMSE of the local field, percent, over the region that the
method keeps, over the part of it that is 6 mm inside the brain, and over the whole brain with zero where nothing is
kept; the part of the brain that is kept. Defaults were chosen at 1.5 mm and 3 T, B0 along z; the other columns are the
error over the region there and for other sampling. The last column is CPU time at 160^3, 22 % of it brain.

=========== ====== ====== ====== ======= ========== ========== =========== ======
1 mm, 7 T   region 6 mm   brain  kept, % 1.5 mm 3 T 25 degrees 1 x 1 x 3   CPU, s
=========== ====== ====== ====== ======= ========== ========== =========== ======
tvpdf       12     -      12     100     20         19         36          -
sharp       19     14     19     100     22         22         26          0.23
resharp     21     17     21     100     22         24         26          1.4
ismv        19     12     19     100     20         21         24          0.49
vsharp      18     12     34     93      20         21         19          0.20
lbv         15     10     25     96      16         21         21          0.17
harperella  39     30     39     100     40         -          -           1.6
iharperella 39     29     39     100     39         -          -           2.7
pdf         42     28     42     100     42         42         48          2.3
msmv        42     28     42     100     42         43         48          2.5
=========== ====== ====== ====== ======= ========== ========== =========== ======

A smaller region is an easier one: compare methods over the same voxels. The rim is hard to tell from a background:
SHARP, RESHARP and iSMV take it off and continue the local field into it
(:mod:`qsmxt.algorithms.background.extension`), without which their errors over the brain are 54, 54 and 46.

Without the rim and the removal of solid harmonics (:mod:`qsmxt.algorithms.background.harmonics`) the errors at 1 mm
over the region are: sharp 44, vsharp 53 (both with the threshold of 0.05), resharp 23, ismv 62, lbv 64. With wrong
values at the rim of the mask lbv suffers most; take them out of the mask first, which changes more than any choice of
method.
"""

from qsmxt.algorithms.background.harperella import harperella as harperella
from qsmxt.algorithms.background.iharperella import iharperella as iharperella
from qsmxt.algorithms.background.ismv import ismv as ismv
from qsmxt.algorithms.background.lbv import lbv as lbv
from qsmxt.algorithms.background.msmv import msmv as msmv
from qsmxt.algorithms.background.pdf import pdf as pdf
from qsmxt.algorithms.background.resharp import resharp as resharp
from qsmxt.algorithms.background.sharp import sharp as sharp
from qsmxt.algorithms.background.tvpdf import tvpdf as tvpdf
from qsmxt.algorithms.background.vsharp import vsharp as vsharp
