"""Makes a container in Azurite, which knows one account. Prints its name as JSON.

    azurite_container.py ENDPOINT CONTAINER
"""

import base64
import datetime
import hashlib
import hmac
import json
import sys
import urllib.request

ACCOUNT = "devstoreaccount1"
# The one that Azurite documents: no secret.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

endpoint, container = sys.argv[1:]
date = datetime.datetime.now(datetime.timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")
headers = {"x-ms-date": date, "x-ms-version": "2021-08-06"}
text = "PUT" + "\n" * 12 + "".join(f"{name}:{value}\n" for name, value in headers.items())
text += f"/{ACCOUNT}/{ACCOUNT}/{container}\nrestype:container"
signature = base64.b64encode(hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()).decode()
headers |= {"Authorization": f"SharedKey {ACCOUNT}:{signature}", "Content-Length": "0"}
request = urllib.request.Request(f"{endpoint}/{container}?restype=container", method="PUT", headers=headers)
urllib.request.urlopen(request, timeout=30)
print(json.dumps({"container": container, "account": ACCOUNT, "key": KEY}))
