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
sharp       14     14     54     76      17         15         19          0.14
resharp     17     17     55     76      18         18         20          1.7
ismv        20     18     46     85      21         20         22          0.33
vsharp      30     24     40     93      32         32         27          0.21
lbv         32     27     37     96      30         33         32          0.20
harperella  39     30     39     100     40         -          -           1.6
iharperella 39     29     39     100     39         -          -           2.7
pdf         42     28     42     100     42         42         48          2.3
msmv        42     28     42     100     42         43         48          2.5
=========== ====== ====== ====== ======= ========== ========== =========== ======

A smaller region is an easier one: compare methods over the same voxels. What is near the rim is nearly impossible to
tell from a background, and methods that keep it are wrong there and leave more of the brain to see.

Without the removal of solid harmonics (:mod:`qsmxt.algorithms.background.harmonics`) the errors at 1 mm over the region
are: sharp 44, vsharp 53 (both with the threshold of 0.05), resharp 23, ismv 62, lbv 64. With wrong values at the rim of
the mask lbv suffers most; take them out of the mask first, which changes more than any choice of method.
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
