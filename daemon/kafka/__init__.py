"""Several daemons run the same pillows over Kafka; each handles a part of the documents."""
