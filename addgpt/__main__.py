"""`python -m addgpt` is the command line."""

import sys
from pathlib import Path

import addgpt

# `-m` looks for modules in the current folder first, where `tasks` may be somebody else's. Only in
# a clone, or where PYTHONSAFEPATH is set, does the first place hold what belongs to this package.
HOME = Path(addgpt.__file__).resolve().parents[1]
if not sys.flags.safe_path and Path(sys.path[0]).resolve() != HOME:
    del sys.path[0]

from addgpt.cli.main import main  # noqa: E402

main()
