"""Relaxometry of spin echoes: the roster, one line a method."""

from qsmxt.algorithms.spinecho.epg import epg as epg
