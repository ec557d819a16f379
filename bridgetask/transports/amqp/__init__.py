"""RabbitMQ: messages, results by ``rpc://``, control and events, through aio-pika."""
