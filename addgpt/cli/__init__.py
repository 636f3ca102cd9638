"""The commands, one a file: parse, call, print. Each file has one `command`, named as the file."""
