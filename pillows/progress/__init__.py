"""The progress of a tail: watermark and checkpoint."""
