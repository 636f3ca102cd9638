"""The GPT, its parts, and the baselines it is compared with."""
