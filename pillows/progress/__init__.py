"""How far a pillow got: watermark and checkpoint."""
