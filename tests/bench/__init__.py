"""`make bench`: how fast the node receives, decodes and reads, beside what else is on the machine. Asserts nothing."""
