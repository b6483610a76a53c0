"""`python -m exporter` is `agentos-exporter`."""

import sys

from exporter.cli.main import main

sys.exit(main())
