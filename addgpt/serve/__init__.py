"""The calculator as a web page, and a run as an endpoint, on this machine. Extra: `web`."""
