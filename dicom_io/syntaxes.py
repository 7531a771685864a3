"""What the node accepts over the network: storage classes and transfer syntaxes. No imports beyond the language.

The node stores every object as it came and reads what it can, so both tables are generous. What is readable is
decided later, per instance, by `dicom_io.dbt.open_image`.
"""

from __future__ import annotations

from typing import Final

# --- Transfer syntaxes (PS3.5 section 10, PS3.6 table A-1) ---

IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"
EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG: Final = "1.2.840.10008.1.2.2"
ENCAPSULATED_UNCOMPRESSED: Final = "1.2.840.10008.1.2.1.98"
RLE_LOSSLESS: Final = "1.2.840.10008.1.2.5"
JPEG2000_LOSSLESS: Final = "1.2.840.10008.1.2.4.90"
JPEG_LS_LOSSLESS: Final = "1.2.840.10008.1.2.4.80"

NATIVE_SYNTAXES: Final = (IMPLICIT_LITTLE, EXPLICIT_LITTLE, DEFLATED, EXPLICIT_BIG)
# Baseline, extended, and the retired spectral selection and full progression processes.
JPEG_LOSSY_SYNTAXES: Final = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 53, 55))
JPEG_LOSSLESS_SYNTAXES: Final = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (57, 70))
JPEG_LS_SYNTAXES: Final = (JPEG_LS_LOSSLESS, "1.2.840.10008.1.2.4.81")
JPEG2000_SYNTAXES: Final = (JPEG2000_LOSSLESS, "1.2.840.10008.1.2.4.91")
HTJ2K_SYNTAXES: Final = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (201, 202, 203))
# Those that may change values. A stream under one of them may still be lossless.
LOSSY_SYNTAXES: Final = (
    *JPEG_LOSSY_SYNTAXES,
    *JPEG_LS_SYNTAXES[1:],
    *JPEG2000_SYNTAXES[1:],
    *HTJ2K_SYNTAXES[2:],
)

#: Transfer syntaxes accepted for every storage class, those that need the least work first.
TRANSFER_SYNTAXES: Final = (
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    JPEG2000_LOSSLESS,
    JPEG_LS_LOSSLESS,
    *reversed(JPEG_LOSSLESS_SYNTAXES),
    *HTJ2K_SYNTAXES,
    RLE_LOSSLESS,
    *JPEG2000_SYNTAXES[1:],
    *JPEG_LS_SYNTAXES[1:],
    *JPEG_LOSSY_SYNTAXES,
    DEFLATED,
    ENCAPSULATED_UNCOMPRESSED,
    EXPLICIT_BIG,
)

# --- Storage classes (PS3.4 B.5, PS3.6 table A-1) ---

_STORAGE = "1.2.840.10008.5.1.4.1.1."

BREAST_TOMOSYNTHESIS: Final = _STORAGE + "13.1.3"
BREAST_PROJECTION_PRESENTATION: Final = _STORAGE + "13.1.4"
BREAST_PROJECTION_PROCESSING: Final = _STORAGE + "13.1.5"
MAMMOGRAPHY_PRESENTATION: Final = _STORAGE + "1.2"
MAMMOGRAPHY_PROCESSING: Final = _STORAGE + "1.2.1"
CT_IMAGE: Final = _STORAGE + "2"
ENHANCED_CT: Final = _STORAGE + "2.1"
SECONDARY_CAPTURES: Final = tuple(_STORAGE + tail for tail in ("7", "7.1", "7.2", "7.3", "7.4"))
SEGMENTATION: Final = _STORAGE + "66.4"
COMPREHENSIVE_3D_SR: Final = _STORAGE + "88.34"
MAMMOGRAPHY_CAD_SR: Final = _STORAGE + "88.50"

_OTHER_TAILS = {
    "1": "Computed Radiography",
    "1.1": "Digital X-Ray, For Presentation",
    "1.1.1": "Digital X-Ray, For Processing",
    "2.2": "Legacy Converted Enhanced CT",
    "3.1": "Ultrasound Multi-frame",
    "4": "MR",
    "4.1": "Enhanced MR",
    "4.2": "MR Spectroscopy",
    "4.3": "Enhanced MR Colour",
    "4.4": "Legacy Converted Enhanced MR",
    "6.1": "Ultrasound",
    "6.2": "Enhanced Ultrasound Volume",
    "9.1.1": "12-lead ECG Waveform",
    "9.1.2": "General ECG Waveform",
    "9.2.1": "Haemodynamic Waveform",
    "11.1": "Grayscale Softcopy Presentation State",
    "11.2": "Colour Softcopy Presentation State",
    "11.3": "Pseudo-Colour Softcopy Presentation State",
    "11.4": "Blending Softcopy Presentation State",
    "11.5": "XA/XRF Grayscale Softcopy Presentation State",
    "11.8": "Advanced Blending Presentation State",
    "12.1": "X-Ray Angiographic",
    "12.1.1": "Enhanced XA",
    "12.2": "X-Ray Radiofluoroscopic",
    "12.2.1": "Enhanced XRF",
    "13.1.1": "X-Ray 3D Angiographic",
    "13.1.2": "X-Ray 3D Craniofacial",
    "20": "Nuclear Medicine",
    "30": "Parametric Map",
    "66": "Raw Data",
    "66.1": "Spatial Registration",
    "66.2": "Spatial Fiducials",
    "66.3": "Deformable Spatial Registration",
    "66.5": "Surface Segmentation",
    "66.7": "Label Map Segmentation",
    "67": "Real World Value Mapping",
    "77.1.1": "VL Endoscopic",
    "77.1.2": "VL Microscopic",
    "77.1.4": "VL Photographic",
    "77.1.5.1": "Ophthalmic Photography 8 Bit",
    "77.1.6": "VL Whole Slide Microscopy",
    "88.11": "Basic Text SR",
    "88.22": "Enhanced SR",
    "88.33": "Comprehensive SR",
    "88.35": "Extensible SR",
    "88.40": "Procedure Log",
    "88.59": "Key Object Selection",
    "88.65": "Chest CAD SR",
    "88.67": "X-Ray Radiation Dose SR",
    "88.68": "Radiopharmaceutical Radiation Dose SR",
    "88.69": "Colon CAD SR",
    "88.71": "Acquisition Context SR",
    "88.76": "Enhanced X-Ray Radiation Dose SR",
    "91.1": "Microscopy Bulk Simple Annotations",
    "104.1": "Encapsulated PDF",
    "104.2": "Encapsulated CDA",
    "128": "PET",
    "128.1": "Legacy Converted Enhanced PET",
    "130": "Enhanced PET",
    "481.1": "RT Image",
    "481.2": "RT Dose",
    "481.3": "RT Structure Set",
    "481.5": "RT Plan",
}

#: SOP class UID -> name of every storage class accepted.
STORAGE_CLASSES: Final[dict[str, str]] = {
    BREAST_TOMOSYNTHESIS: "Breast Tomosynthesis",
    MAMMOGRAPHY_PRESENTATION: "Digital Mammography, For Presentation",
    MAMMOGRAPHY_PROCESSING: "Digital Mammography, For Processing",
    BREAST_PROJECTION_PRESENTATION: "Breast Projection, For Presentation",
    BREAST_PROJECTION_PROCESSING: "Breast Projection, For Processing",
    SECONDARY_CAPTURES[0]: "Secondary Capture",
    SECONDARY_CAPTURES[1]: "Multi-frame Single Bit Secondary Capture",
    SECONDARY_CAPTURES[2]: "Multi-frame Grayscale Byte Secondary Capture",
    SECONDARY_CAPTURES[3]: "Multi-frame Grayscale Word Secondary Capture",
    SECONDARY_CAPTURES[4]: "Multi-frame True Colour Secondary Capture",
    CT_IMAGE: "CT",
    ENHANCED_CT: "Enhanced CT",
    SEGMENTATION: "Segmentation",
    COMPREHENSIVE_3D_SR: "Comprehensive 3D SR",
    MAMMOGRAPHY_CAD_SR: "Mammography CAD SR",
    **{_STORAGE + tail: name for tail, name in _OTHER_TAILS.items()},
}
