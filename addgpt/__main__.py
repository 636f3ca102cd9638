"""`python -m addgpt` is the command line."""

from addgpt.cli import main

main()
