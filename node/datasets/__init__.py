"""Data sets: which images may be learned from, the split by patient, frozen snapshots, de-identified copies."""
