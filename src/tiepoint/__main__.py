"""`python -m tiepoint`."""

import sys

from tiepoint.cli import main

sys.exit(main())
