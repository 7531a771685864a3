"""3D-GMIC for digital breast tomosynthesis: a library of arrays and tensors that knows no DICOM.

Research use only, not for clinical use. Nothing is imported here, so that the parts which need numpy
alone (`gmic.config`, `gmic.geometry`, `gmic.preprocess`, `gmic.phantom`) load without torch.
"""
