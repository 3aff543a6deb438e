"""Figures, citations and HTML pages."""
