"""`python -m tinywindow.cli` is the command `tinywindow`."""

import sys

from tinywindow.cli.entry import main

sys.exit(main())
