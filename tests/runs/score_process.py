"""Scores runs' folders in a process that saw nothing else, and prints the scores as JSON."""

import json
import sys

import memarc

if __name__ == "__main__":
    print(json.dumps({folder: memarc.load(folder).evaluate() for folder in sys.argv[1:]}))
