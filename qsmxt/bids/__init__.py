"""BIDS in and out: queries, acquisitions, names and sidecars of derivatives."""
