"""`python -m shunt.demo_model [DIRECTORY]`: convert the demo model unless it is there already."""

import sys
from pathlib import Path

from shunt.demo_model.smollm2 import CACHE, ensure_smollm2

print(ensure_smollm2(Path(sys.argv[1]) if len(sys.argv) > 1 else CACHE))
