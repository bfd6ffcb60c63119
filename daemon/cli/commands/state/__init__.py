"""The commands that show and edit files of state: checkpoints, dead letters, stores."""
