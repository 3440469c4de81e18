from tiepoint.cli import main
import sys

sys.exit(main())
