"""Imported once by the process that trainings and sessions of tests are forked from."""

import addgpt.calculator.repl
import addgpt.cli.main
import addgpt.cli.train
import addgpt.training.distributed
import addgpt.training.loop
import addgpt.training.progress
import tests.helpers.calculators

__all__ = ["addgpt", "tests"]
