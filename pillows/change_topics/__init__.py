"""The changes of databases in topics of Kafka, from which several daemons read them."""
