"""One turn of one database: an ordinary one, or the short first one."""
