"""Parts that are useful without the daemon: bulk pusher and parallel writer."""
