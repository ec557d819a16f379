"""RabbitMQ, through aio-pika: messages, results by ``rpc://``, control commands and events."""
