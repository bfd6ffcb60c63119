"""Several daemons that run the pillows at the same time, each a part of the documents, over Kafka."""
