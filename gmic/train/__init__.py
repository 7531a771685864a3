"""Training: constant-memory steps, the loop around them, pre-training, search and the command.

Research use only, not for clinical use. `python -m gmic.train --help` lists what can be run.
"""
