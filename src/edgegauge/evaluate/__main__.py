"""`python -m edgegauge.evaluate`: the child process that `manager` starts."""

import sys

from edgegauge.evaluate.worker import work
from edgegauge.measure.child import serve

sys.exit(serve(work))
