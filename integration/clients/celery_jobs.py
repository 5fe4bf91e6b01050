"""A Celery application with broker and results in Redis, and what is asked of it.

usage: celery_jobs.py PORT         asks, with a worker process beside it
Prints what each step answered, one per line; the test beside this file judges. The port is also
told to the worker, by the environment.
"""

import os
import subprocess
import sys

import celery

if __name__ == "__main__":
    os.environ["JOBS_PORT"] = sys.argv[1]

url = f"redis://127.0.0.1:{os.environ['JOBS_PORT']}"
app = celery.Celery("celery_jobs", broker=f"{url}/2", backend=f"{url}/3")
app.conf.update(
    broker_connection_retry_on_startup=False,
    broker_transport_options={"visibility_timeout": 60},
    task_acks_late=True,
    worker_hijack_root_logger=False,
)


@app.task(name="add")
def add(x, y):
    return x + y


@app.task(name="total")
def total(numbers):
    return sum(numbers)


@app.task(name="fail")
def fail():
    raise ValueError("as it should")


@app.task(name="flaky", bind=True, max_retries=2)
def flaky(self):
    """Succeeds at the third attempt: the others go back to the queue, with a time to wait."""
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return self.request.retries


def ask():
    limit = {"timeout": 30}
    print("add", add.delay(2, 3).get(**limit))
    many = [add.delay(number, number) for number in range(20)]
    print("many", [job.get(**limit) for job in many] == [2 * number for number in range(20)])
    print("chain", celery.chain(add.s(1, 2), add.s(10), add.s(100))().get(**limit))
    print("group", celery.group(add.s(n, 1) for n in range(5))().get(**limit))
    # The last of the group starts what comes behind it: counted in Redis.
    print("chord", celery.chord([add.s(n, n) for n in range(6)])(total.s()).get(**limit))
    print("retried", flaky.delay().get(**limit))
    print("later", add.apply_async((4, 4), countdown=0.2).get(**limit))
    try:
        fail.delay().get(**limit)
    except ValueError as error:
        print("failed", error)
    print("ping", [list(reply.values()) for reply in app.control.ping(timeout=5, limit=1)])
    job = add.delay(1, 1)
    print("result", job.get(**limit), job.state, job.forget(), job.state)


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "celery_jobs", "--workdir", here, "worker"]
        + ["--pool", "solo", "--loglevel", "WARNING", "--hostname", "worker@test"],
        cwd=here,
        # What the worker says of itself is nothing to be judged.
        stdout=sys.stderr,
    )
    try:
        ask()
    finally:
        worker.terminate()
        worker.wait(30)
    print("worker ended", worker.returncode)
