"""The vocabulary of the science: named arrays, stages and methods. Standard library only."""
