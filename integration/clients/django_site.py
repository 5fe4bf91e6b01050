"""A Django site whose cache and sessions are in Redis, used end to end.

usage: django_site.py PORT
Prints what each step answered, one per line; the test beside this file judges.
"""

import sys

import django
from django.conf import settings
from django.http import HttpResponse
from django.urls import path


def visit(request):
    """Counts the visits of a session."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    request.session.setdefault("basket", []).append(request.GET["item"])
    return HttpResponse(f"{request.session['visits']} {request.session['basket']}")


def leave(request):
    request.session.flush()
    return HttpResponse("left")


urlpatterns = [path("visit", visit), path("leave", leave)]

settings.configure(
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="of a test",
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    CACHES={
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{sys.argv[1]}/1",
        }
    },
)
django.setup()

from django.core.cache import cache  # noqa: E402
from django.test import Client  # noqa: E402

many = {f"item{number}": {"number": number} for number in range(20)}
print("set", cache.set("plain", "value", timeout=100), cache.get("plain"))
print("add", cache.add("plain", "other"), cache.add("fresh", [1, 2]), cache.get("fresh"))
print("many", cache.set_many(many, timeout=100), cache.get_many(many) == many)
print("incr", cache.set("count", 1), cache.incr("count", 4), cache.decr("count"))
print("touch", cache.touch("count", 50), cache.touch("nothing"), cache.has_key("count"))
print("or set", cache.get_or_set("computed", lambda: 42), cache.get("nothing", "default"))
print("expired", cache.set("brief", 1, timeout=0), cache.get("brief"))
print("delete", cache.delete("plain"), cache.delete("plain"), cache.delete_many(many), cache.get_many(many))

browser, other = Client(), Client()
for item in ("tea", "milk"):
    print("visit", browser.get("/visit", {"item": item}).content.decode())
print("other", other.get("/visit", {"item": "salt"}).content.decode())
print("session", dict(browser.session), browser.session.exists(browser.session.session_key))
print("leave", browser.get("/leave").content.decode())
print("again", browser.get("/visit", {"item": "jam"}).content.decode())
print("clear", cache.clear(), cache.get("fresh"), cache.get("count"))
cache.close()
