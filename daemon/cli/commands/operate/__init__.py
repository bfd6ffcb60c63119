"""The commands that watch and steer running pillows."""
