"""``python -m deepmac`` is the command ``deepmac``."""

import sys

from deepmac.cli import main

if __name__ == "__main__":
    sys.exit(main())
