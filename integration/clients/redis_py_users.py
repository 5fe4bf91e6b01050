"""Users and passwords with an unmodified redis-py, in both protocols.

usage: redis_py_users.py PORT
Prints what each step answered, one per line; the test in integration/access judges.
"""

import sys

import redis

for protocol in (2, 3):

    def client(**how):
        return redis.Redis(
            port=int(sys.argv[1]), protocol=protocol, decode_responses=True, **how
        )

    def attempt(name, call):
        try:
            call()
            print(protocol, name, "allowed")
        except redis.RedisError as error:
            print(protocol, name, type(error).__name__)

    app = client(username="app", password="app")
    print(protocol, "whoami", app.acl_whoami())
    pipe = app.pipeline(transaction=True)
    pipe.set("app:1", 1).set("app:2", 1).incr("app:2")
    print(protocol, "transaction", pipe.execute())
    attempt("denied", lambda: app.get("other"))
    attempt("wrong", lambda: client(username="app", password="no").ping())
    attempt("none", lambda: client().ping())
