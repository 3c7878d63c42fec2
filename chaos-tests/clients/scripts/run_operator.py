"""Runs the operator beside this file, as `kopf run` does."""

import pathlib
import sys

from kopf.cli import main

sys.argv = ["kopf", "run", "--all-namespaces", "--standalone", str(pathlib.Path(__file__).with_name("kopf_operator.py"))]
main()
