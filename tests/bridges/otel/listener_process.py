"""A listener to be killed: `listener_process.py STORE WAIT_FACTOR` prints its port, and listens."""

from __future__ import annotations

import sys
import time

import kern_nb
from kern_nb.bridges.otel import recorder

recorder._WAIT_FACTOR = float(sys.argv[2])
print(kern_nb.listen(kern_nb.db.open_store(sys.argv[1]), port=0).port, flush=True)
time.sleep(120)
