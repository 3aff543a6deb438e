"""Programs that are not part of QSMxT, behind the same method records."""
