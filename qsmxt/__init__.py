"""QSMxT: quantitative susceptibility mapping of whole studies, from scanner files to group statistics."""

__version__ = "10.0.0.dev0"
