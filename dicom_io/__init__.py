"""DICOM in and out: reading breast images, writing segmentations and structured reports.

This package knows no database, queue or model, and never speaks of retry. Errors are drawn in `dicom_io.errors`.
Research use only, not for clinical use.
"""
