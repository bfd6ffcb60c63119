"""Topics of Kafka as targets."""
