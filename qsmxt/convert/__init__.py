"""DICOM and NIfTI to BIDS, and maps back to DICOM."""
