"""``python -m sqlbak`` is the same as ``sqlbak``."""

from sqlbak.cli.main import main

main()
