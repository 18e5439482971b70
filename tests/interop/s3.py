"""An S3 over real HTTP: moto's server with two buckets, until standard input ends.

Conditions on writes are atomic here. Requests are not authenticated until `POST /moto-api/reset-auth` switches that on.
Prints the URL of the endpoint.
"""

import pathlib
import sys

import boto3
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
endpoint = f"http://{host}:{port}"
s3 = boto3.client(
    "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
)
s3.create_bucket(Bucket="fleet")
# Anyone may read: the policy that the documentation gives.
policy = pathlib.Path(__file__).parents[2] / "contrib/iam/public-reader.json"
policy = policy.read_text().replace("BUCKET", "fleet").replace("PREFIX/", "*")
s3.put_bucket_policy(Bucket="fleet", Policy=policy)
# And here nobody.
s3.create_bucket(Bucket="vault")
print(endpoint, flush=True)
sys.stdin.read()
server.stop()
