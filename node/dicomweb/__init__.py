"""DICOMweb (PS3.18): what the node holds, by HTTP."""
