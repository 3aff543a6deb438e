"""Settings of a run: frozen dataclasses per stage; precedence default < preset < file < flag."""
