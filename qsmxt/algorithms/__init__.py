"""Pure algorithms: arrays in, arrays out, float32, no file is opened and nothing is printed.

Shared operators live in this folder; one folder per stage holds its methods, one file each.
"""
