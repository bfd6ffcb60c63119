"""The commands that show and edit what is on disk: checkpoints, dead letters, stores."""
