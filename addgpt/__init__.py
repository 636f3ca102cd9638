"""addgpt: a research harness in which a small GPT learns arithmetic."""

__version__ = "0.1.0"
