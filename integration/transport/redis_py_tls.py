"""One transaction of an unmodified redis-py over TLS.

usage: redis_py_tls.py PORT CA CERTIFICATE KEY KEY0 ...
CERTIFICATE and KEY may be empty. Prints what EXEC answered, or why there is no connection.
"""

import sys

import redis

port, ca, certificate, key, *keys = sys.argv[1:]
client = redis.Redis(
    host="localhost",
    port=int(port),
    ssl=True,
    ssl_ca_certs=ca,
    ssl_certfile=certificate or None,
    ssl_keyfile=key or None,
    retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0),
)
try:
    pipe = client.pipeline(transaction=True)
    for name in keys:
        pipe.incr(name)
    print("transaction", pipe.execute())
    print("deleted", client.delete(*keys))
except (redis.ConnectionError, OSError) as error:
    print("refused", type(error).__name__, error)
