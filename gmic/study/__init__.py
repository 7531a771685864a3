"""Does 3D-GMIC learn to find lesions from image-level labels alone? A study on phantoms.

`python -m gmic.study quick` (minutes) or `full` (hours, resumable) makes the phantoms, trains, tests
and writes a report. The phantoms test a method; they say nothing about patients.
"""
