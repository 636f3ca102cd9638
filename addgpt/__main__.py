"""`python -m addgpt` is the command line."""

from addgpt.cli.main import main

main()
