"""The DICOM conformance statement (PS3.2), written from the tables that the node works by: nothing is said twice."""
