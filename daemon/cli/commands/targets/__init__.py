"""Commands about what targets hold."""
