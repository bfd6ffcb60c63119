"""The persistent ordered dictionary: its engine, its files and its dict API."""
