"""The calculator as a local web page, and runs while they train. Needs the extra `web`."""
