"""nipype interfaces, one per stage."""
